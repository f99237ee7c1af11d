"""Shards with the labels of a teacher, as `depthray predict --as-labels` writes them, of frames that a form reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from depthray.config.sections import Data
from depthray.data import packing
from depthray.data.source import Source
from depthray.data.sources import open_source

WRONG = 1.1  # times the truth: what the teacher predicts


class Labelled:
    """A source whose frames a teacher has labelled. See `depthray.data.source.Source`."""

    def __init__(self, source: Source, *, measured: bool, sigma: float) -> None:
        self._source, self._measured, self._sigma = source, measured, sigma
        self.frames = source.frames
        self.keys = source.keys | {"teacher"} | ({"sigma"} if sigma else set())
        self.fingerprint = f"{source.fingerprint}-{measured}-{sigma}"

    def read(self, index: int) -> Any:
        """The sample, its labels WRONG times its depth, which is 0 where the set has none."""
        sample: dict[str, Any] = dict(self._source.read(index))
        sample["teacher"] = np.where(sample["depth"] > 0, sample["depth"], 2.0).astype(np.float32) * np.float32(WRONG)
        if self._sigma:
            sample["sigma"] = sample["teacher"] * np.float32(self._sigma)
        if not self._measured:
            sample["depth"] = np.zeros_like(sample["depth"])
        return sample

    def faults(self, index: int) -> list[str]:
        """None."""
        return []


def label(root: Path | str, out: Path, *, measured: bool = True, sigma: float = 0.0, kind: str = "metric") -> str:
    """Write the frames of a folder as shards with labels -> their path.

    `sigma` is a share of the labelled depth, `kind` what the teacher's numbers are said to be.
    """
    source = Labelled(open_source(Data(source="folder", root=str(root))), measured=measured, sigma=sigma)
    packing.pack(source, out, provenance={"name": "labels", "labelled_by": {"name": "teacher", "depth_kind": kind}})
    return str(out)
