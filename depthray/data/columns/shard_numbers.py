"""Which shard a frame is in, by the last frames of shards instead of a number a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthray.data.columns.selection import Selection

Indices = NDArray[np.int64]


class ShardNumbers:
    """The number of the shard of each frame, looked up as in an array; frames are in the order of their shards."""

    def __init__(self, ends: Indices) -> None:
        self.ends = ends  # (S,) the number of the first frame after each shard

    @staticmethod
    def of(numbers: ShardNumbers | Indices) -> ShardNumbers:
        """Those of an array with a number a frame. Raises ValueError where frames are not in the order of shards."""
        if isinstance(numbers, ShardNumbers):
            return numbers
        if (np.diff(numbers) < 0).any():
            raise ValueError("frames must be in the order of their shards")
        return ShardNumbers(np.searchsorted(numbers, np.arange(int(numbers.max()) + 1), side="right").astype(np.int64))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, frames: Any) -> Any:
        """Frame -> the number of its shard; frames (N,) -> (N,)."""
        return self.ends.searchsorted(frames, side="right")  # np.searchsorted takes three times as long for one

    @property
    def starts(self) -> Indices:
        """(S,) the first frame of each shard."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])

    def count(self, chosen: Selection) -> Indices:
        """(S,) how many of some frames are in each shard."""
        return np.diff(chosen.count_below(self.ends), prepend=0)

    def used_by(self, *frames: ArrayLike) -> list[int]:
        """The shards that some frames are in, ascending."""
        counts = [self.count(Selection.of(each)) for each in frames]
        return [int(number) for number in np.flatnonzero(np.sum(counts, axis=0))]
