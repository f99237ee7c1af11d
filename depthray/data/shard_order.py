"""Shards divided among workers (data.order=shards), so that a node reads no more of a set than its own part.

All shards are put in an order drawn from the recipe's seed. The training frames in it are cut into as many equal
parts as there are workers, one each for the complete run; a shard across a cut is read by the two neighbours, which
mostly share a node. So parts differ by one frame at most, however uneven the shards. A worker shuffles its part anew in
every epoch, within a window of shards that moves along it. All follows from seed, epoch, rank and world size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from depthray.config.sections import Data
from depthray.data.source import ShardedSource, Source
from depthray.errors import UsageError

Indices = NDArray[np.int64]
Items = TypeVar("Items", Indices, list[list[int]])

WINDOW = 8  # shards whose frames are mixed
IMAGE_SHARDS = 4  # shards of validation frames from which those of the sheets of images are taken


class ShardOrder:
    """The frames of a set in the order in which their shards are divided."""

    def __init__(self, shard_numbers: Indices, *, seed: int) -> None:
        count = int(shard_numbers.max()) + 1
        self._positions = np.random.default_rng([seed, count]).permutation(count)[shard_numbers]
        self._seed = seed

    def part(self, indices: Sequence[int] | Indices, *, rank: int, world_size: int) -> Indices:
        """A rank's part of some frames, in shard order."""
        return _cut(self._in_order(indices), rank=rank, world_size=world_size)

    def shuffle(self, part: Indices, *, epoch: int, rank: int) -> Indices:
        """A part in the order of an epoch: its shards shuffled, and each frame up to WINDOW shards later."""
        random = np.random.default_rng([self._seed, epoch, rank])
        _, own = np.unique(self._positions[part], return_inverse=True)
        # A time for each frame: its shard's turn plus a random delay, which mixes neighbouring shards but never all.
        times = random.permutation(int(own.max()) + 1)[own] + random.uniform(0, WINDOW, len(part))
        return part[np.argsort(times, kind="stable")]

    def groups(self, indices: Sequence[int], *, size: int, rank: int, world_size: int) -> list[list[int]]:
        """A rank's batches of at most `size` frames, none of which spans two shards or depends on the world size."""
        ordered = self._in_order(indices)
        ends = np.flatnonzero(np.diff(self._positions[ordered])) + 1
        each = [shard.tolist() for shard in np.split(ordered, ends)]
        batches = [shard[start : start + size] for shard in each for start in range(0, len(shard), size)]
        return _cut(batches, rank=rank, world_size=world_size)

    def first(self, indices: Sequence[int], *, shards: int = IMAGE_SHARDS) -> list[int]:
        """Those of some frames that are in the first few shards in order that have any."""
        ordered = self._in_order(indices)
        chosen: list[int] = ordered[
            np.isin(self._positions[ordered], np.unique(self._positions[ordered])[:shards])
        ].tolist()
        return chosen

    def _in_order(self, indices: Sequence[int] | Indices) -> Indices:
        # Sorted, so that the same frames give the same parts in whatever order they are named.
        frames = np.sort(np.asarray(indices, np.int64))
        return frames[np.argsort(self._positions[frames], kind="stable")]


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


def _cut(items: Items, *, rank: int, world_size: int) -> Items:
    """The rank-th of equal parts, up to one item."""
    # Integer arithmetic: neighbouring parts meet exactly, without a gap or an overlap.
    return items[len(items) * rank // world_size : len(items) * (rank + 1) // world_size]
