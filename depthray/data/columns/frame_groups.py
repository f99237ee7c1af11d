"""Frames that are read together, as positions in a sequence of them: a list is made of a group when it is its turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class FrameGroups(Sequence[Any]):
    """Lists of frames, each the frames from a position to another of a sequence of them."""

    def __init__(self, frames: Sequence[int], starts: Indices, stops: Indices) -> None:
        self._frames, self._starts, self._stops = frames, starts, stops  # (G,) positions

    @staticmethod
    def of_size(frames: Sequence[int], size: int, *, first: int, every: int) -> FrameGroups:
        """The groups of `size` frames that follow each other, the last smaller: group `first`, and every so many."""
        starts = np.arange(first * size, len(frames), every * size)
        return FrameGroups(frames, starts, np.minimum(starts + size, len(frames)))

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: Any) -> Any:
        """The list of frames of a group; of a slice the groups."""
        if isinstance(number, slice):
            return FrameGroups(self._frames, self._starts[number], self._stops[number])
        return list(self._frames[int(self._starts[number]) : int(self._stops[number])])
