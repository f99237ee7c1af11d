"""The files of a part of a predicted data set, written into a folder of its own before they get to their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.data.shards import format
from depthray.data.shards.writer import RangeWriter, translate_write_errors
from depthray.data.source import Frame
from depthray.predicted_sets.frame_stream import Maps
from depthray.predicted_sets.set_plan import SetPlan
from depthray.version import __version__

INDEX_COLUMNS = ("rgb", "depth", "scene", "split", "source", "id", "fx", "fy", "cx", "cy")
Row = dict[str, str]  # of index.csv


class PartOutput(Protocol):
    """Takes the frames of a part in order."""

    def __enter__(self) -> PartOutput: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave nothing open."""

    def add(self, index: int, frame: Frame, sample: Sample, maps: Maps) -> None:
        """Append a frame with its predicted maps (H,W); a DataError where it does not fit the form."""

    def finish(self) -> list[Row]:
        """Complete the files -> what an index of the whole set says of them."""


class ShardOutput:
    """Shards of a part: one, or one for each size of frame."""

    def __init__(self, plan: SetPlan, number: int, folder: Path) -> None:
        self._as_labels, self._encoding = plan.request.as_labels, plan.encoding
        self._keeps_sigma = bool(plan.request.confidence or plan.request.ensemble)
        role = "labelled_by" if self._as_labels else "predicted_by"
        provenance: Mapping[str, Any] = {
            "name": Path(plan.section.root).name,
            "form": plan.section.source,
            "depthray": __version__,
            "fingerprint": plan.manifest.data["fingerprint"],
            role: plan.manifest.model.as_record(),
        }
        capacity = len(plan.frames(number))
        self._writer = RangeWriter(folder, number, provenance, capacity, encoding=plan.encoding)

    def __enter__(self) -> ShardOutput:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, at)

    def add(self, index: int, frame: Frame, sample: Sample, maps: Maps) -> None:
        """Append a frame."""
        made = labelled(sample, maps) if self._as_labels else predicted(sample, maps, sigma=self._keeps_sigma)
        self._writer.add(frame, format.to_stored(made, where=f"frame '{frame.id}'", encoding=self._encoding))

    def finish(self) -> list[Row]:
        """Complete the shards, which need no list of them."""
        self._writer.finish(())
        return []


def predicted(sample: Sample, maps: Maps, *, sigma: bool) -> Sample:
    """A frame (H,W) with its predicted depth in place of its own, and where asked for its standard deviation."""
    made: Sample = {"image": sample["image"], "depth": maps["depth"]}
    if sigma:
        made["sigma"] = maps["sigma"]
    if "intrinsics" in sample:
        made["intrinsics"] = sample["intrinsics"]
    return made


def labelled(sample: Sample, maps: Maps) -> Sample:
    """A frame (H,W) with all that it had, and the prediction beside its own depth, which is 0 where it has none."""
    made: Sample = {**sample, "teacher": maps["depth"]}
    if "depth" not in made:
        made["depth"] = np.zeros(sample["image"].shape[:2], np.float32)
    if "sigma" in maps:
        made["sigma"] = maps["sigma"]
    return made


class PngOutput:
    """Colour as 8-bit and depth as 16-bit PNG in millimetres, named by the position of the frame in its data set."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._rows: list[Row] = []

    def __enter__(self) -> PngOutput:
        for kind in ("rgb", "depth"):
            (self._folder / self._name(kind)).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Do nothing: each file is closed when it is written."""

    def _name(self, kind: str) -> str:
        # A folder for each part, as folders of a million files are slow.
        return f"{kind}/{self._number:05d}"

    def add(self, index: int, frame: Frame, sample: Sample, maps: Maps) -> None:
        """Write the two files of a frame."""
        pixels = {
            "rgb": cv2.cvtColor(sample["image"], cv2.COLOR_RGB2BGR),
            "depth": format.to_millimetres(maps["depth"]),
        }
        row = {kind: f"{self._name(kind)}/{index:08d}.png" for kind in pixels}
        with translate_write_errors(self._folder):
            for kind, array in pixels.items():
                (self._folder / row[kind]).write_bytes(_png(array))
        row |= {"scene": frame.scene or frame.source or "unknown", "split": frame.split, "source": frame.source}
        self._rows.append(row | {"id": frame.id} | _pinhole(sample))

    def finish(self) -> list[Row]:
        """The rows of index.csv."""
        return self._rows


def _png(array: NDArray[Any]) -> bytes:
    _, data = cv2.imencode(".png", array)
    return data.tobytes()


def _pinhole(sample: Sample) -> Row:
    """The camera of a sample as columns; empty where it has none."""
    if "intrinsics" not in sample:
        return {}
    camera = sample["intrinsics"].astype(float)
    places = {"fx": (0, 0), "fy": (1, 1), "cx": (0, 2), "cy": (1, 2)}
    return {name: repr(float(camera[place])) for name, place in places.items()}
