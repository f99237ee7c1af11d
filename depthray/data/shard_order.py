"""Shards divided among workers (data.order=shards), so that a node reads no more of a set than its own part.

All shards are put in an order drawn from the recipe's seed. The training frames in it are cut into as many equal
parts as there are workers, one each for the complete run; a shard across a cut is read by the two neighbours, which
mostly share a node. So parts differ by one frame at most, however uneven the shards. A worker shuffles its part anew in
every epoch, within a window of shards that moves along it. All follows from seed, epoch, rank and world size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from depthray.config.sections import Data
from depthray.data.columns.frame_groups import FrameGroups
from depthray.data.columns.selection import Selection
from depthray.data.columns.shard_numbers import ShardNumbers
from depthray.data.source import ShardedSource, Source
from depthray.errors import UsageError

Indices = NDArray[np.int64]

WINDOW = 8  # shards whose frames are mixed
IMAGE_SHARDS = 4  # shards of validation frames from which those of the sheets of images are taken


class ShardOrder:
    """The frames of a set in the order in which their shards are divided."""

    def __init__(self, shard_numbers: ShardNumbers | Indices, *, seed: int) -> None:
        self._numbers = ShardNumbers.of(shard_numbers)
        count = len(self._numbers.ends)
        self._places = np.random.default_rng([seed, count]).permutation(count)  # (S,) of each shard in the order
        self._seed = seed

    def part(self, indices: ArrayLike, *, rank: int, world_size: int) -> Indices:
        """A rank's part of some frames, in shard order."""
        chosen = Selection.of(indices)
        start, stop = _cut(len(chosen), rank=rank, world_size=world_size)
        return chosen.take(self._positions(chosen, start, stop))

    def shuffle(self, part: Indices, *, epoch: int, rank: int) -> Indices:
        """A part in the order of an epoch: its shards shuffled, and each frame up to WINDOW shards later."""
        random = np.random.default_rng([self._seed, epoch, rank])
        _, own = np.unique(self._places[self._numbers[part]], return_inverse=True)
        # A time for each frame: its shard's turn plus a random delay, which mixes neighbouring shards but never all.
        times = random.permutation(int(own.max()) + 1)[own] + random.uniform(0, WINDOW, len(part))
        return part[np.argsort(times, kind="stable")]

    def groups(self, indices: ArrayLike, *, size: int, rank: int, world_size: int) -> FrameGroups:
        """A rank's batches of at most `size` frames, none of which spans two shards or depends on the world size."""
        chosen = Selection.of(indices)
        counts, firsts = self._shards_in_order(chosen)
        batches = -(-counts // size)
        ends = np.cumsum(batches)
        number = np.arange(*_cut(int(batches.sum()), rank=rank, world_size=world_size))  # of all batches in order
        place = np.searchsorted(ends, number, side="right")
        starts = firsts[place] + (number - (ends - batches)[place]) * size
        return FrameGroups(chosen, starts, np.minimum(starts + size, (firsts + counts)[place]))

    def first(self, indices: ArrayLike, *, shards: int = IMAGE_SHARDS) -> list[int]:
        """Those of some frames that are in the first few shards in order that have any."""
        chosen = Selection.of(indices)
        counts = self._shards_in_order(chosen)[0]
        stop = int(counts[counts > 0][:shards].sum())
        frames: list[int] = chosen.take(self._positions(chosen, 0, stop)).tolist()
        return frames

    def _shards_in_order(self, chosen: Selection) -> tuple[Indices, Indices]:
        """(S,) of the shards in order: how many of some frames each has, and the position of the first among these."""
        shards = np.argsort(self._places)
        return self._numbers.count(chosen)[shards], chosen.count_below(self._numbers.starts)[shards]

    def _positions(self, chosen: Selection, start: int, stop: int) -> Indices:
        """The positions, among some frames, of those that are the `start`-th to `stop`-th of them in shard order."""
        counts, firsts = self._shards_in_order(chosen)
        ends = np.cumsum(counts)
        # By shard, which of its frames are within.
        lows, highs = np.clip(start - (ends - counts), 0, counts), np.clip(stop - (ends - counts), 0, counts)
        parts = [
            np.arange(first + low, first + high)
            for first, low, high in zip(firsts.tolist(), lows.tolist(), highs.tolist(), strict=True)
            if low < high
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def shard_order_of(source: Source, data: Data, *, seed: int) -> ShardOrder | None:
    """The shard order of a set with data.order=shards, else None. Raises UsageError where the set has no shards."""
    if data.order == "frames":
        return None
    if not isinstance(source, ShardedSource):
        raise UsageError(
            f"data.order=shards divides shards among workers, and data.source={data.source} has none; "
            "pack the data with `depthray data pack`, or leave data.order out"
        )
    return ShardOrder(source.shard_numbers, seed=seed)


def _cut(count: int, *, rank: int, world_size: int) -> tuple[int, int]:
    """Start and end of the rank-th of equal parts of `count` items, up to one item."""
    # Integer arithmetic: neighbouring parts meet exactly, without a gap or an overlap.
    return count * rank // world_size, count * (rank + 1) // world_size
