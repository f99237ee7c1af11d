"""Predictions as bags of ROS 2: one a recording, or one a scene, of which each part has a file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import TracebackType

from depthray.batch import Sample
from depthray.data.recordings.clocks import SECOND
from depthray.data.recordings.containers.rosbag_writer import METADATA, BagFile, join_information, read_information
from depthray.data.shards.writer import translate_write_errors
from depthray.data.source import Frame, TimedSource
from depthray.predicted_sets.frame_stream import Maps
from depthray.predicted_sets.part_outputs import Row
from depthray.predicted_sets.set_plan import SetPlan
from depthray.storage.folders import AnyFolder

BAG, INFORMATION = "bag", "information"  # of a row: the name of a bag, and what one of its files says of itself


class BagOutput:
    """The files that the frames of a part have in bags."""

    def __init__(self, plan: SetPlan, number: int, folder: Path, source: object) -> None:
        self._timed = source if isinstance(source, TimedSource) else None
        self._number, self._folder, self._rate = number, folder, plan.request.rate
        self._open: dict[str, BagFile] = {}

    def __enter__(self) -> BagOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._open.values():
            file.__exit__(kind or InterruptedError, error, at)
        self._open.clear()

    def add(self, index: int, frame: Frame, sample: Sample, maps: Maps) -> None:
        """Append a frame."""
        bag, stamp = self._place(index, frame)
        if bag not in self._open:
            self._open[bag] = BagFile(self._at(bag)).__enter__()
        camera, lens = sample.get("intrinsics"), sample.get("distortion")
        self._open[bag].add(stamp, sample["image"], maps["depth"], intrinsics=camera, lens=lens)

    def finish(self) -> list[Row]:
        """Complete the files -> what their metadata say, a row each."""
        rows = []
        while self._open:
            bag, file = self._open.popitem()
            file.__exit__(None, None, None)
            at = self._at(bag)
            rows.append({BAG: bag, INFORMATION: json.dumps(read_information(at))})
            with translate_write_errors(self._folder):
                (self._folder / bag).mkdir(parents=True, exist_ok=True)
                (at / f"{at.name}.db3").replace(self._folder / bag / f"{at.name}.db3")
                shutil.rmtree(at)  # with its metadata, which were of this file alone
        return sorted(rows, key=lambda row: row[BAG])

    def _at(self, bag: str) -> Path:
        return self._folder / f"{bag}_{self._number}"

    def _place(self, index: int, frame: Frame) -> tuple[str, int]:
        """The bag of a frame, and its time in nanoseconds: that of its recording, or by its number."""
        if self._timed is not None:
            name, stamp = self._timed.recorded_at(index)
        else:
            # From 1 / rate on, as a stamp of 0 is none.
            name, stamp = frame.scene or frame.source, round((index + 1) * SECOND / self._rate)
        return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "frames", stamp


def write_metadata(folder: AnyFolder, rows: list[Row]) -> None:
    """The metadata of each bag, of rows in the order of their parts."""
    for bag in sorted({row[BAG] for row in rows}):
        files = [json.loads(row[INFORMATION]) for row in rows if row[BAG] == bag]
        (folder / bag).write(METADATA, join_information(files).encode())
