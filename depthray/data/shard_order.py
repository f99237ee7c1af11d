"""Shards dealt to workers (data.order=shards), so that a node reads no more of a set than its own part.

All shards lie in a line, in an order drawn from the recipe's seed. The training frames of that line are cut into as
many equal parts as there are workers, one each for the whole run; a shard across a cut is read by the two neighbours,
which mostly share a node. So parts differ by one frame at most, however uneven the shards. A worker shuffles its part
anew in every epoch, within a window of shards that moves along it. All follows from seed, epoch, rank and world size.
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
IMAGE_SHARDS = 4  # shards of validation frames from which those of the pictures are taken


class ShardOrder:
    """The frames of a set in the order in which their shards are dealt."""

    def __init__(self, shard_numbers: Indices, *, seed: int) -> None:
        count = int(shard_numbers.max()) + 1
        self._places = np.random.default_rng([seed, count]).permutation(count)[shard_numbers]
        self._seed = seed

    def part(self, indices: Sequence[int] | Indices, *, rank: int, world_size: int) -> Indices:
        """A rank's part of some frames, in line."""
        return _cut(self._lined(indices), rank=rank, world_size=world_size)

    def shuffled(self, part: Indices, *, epoch: int, rank: int) -> Indices:
        """A part in the order of an epoch: its shards shuffled, and each frame up to WINDOW shards further on."""
        random = np.random.default_rng([self._seed, epoch, rank])
        _, own = np.unique(self._places[part], return_inverse=True)
        when = random.permutation(int(own.max()) + 1)[own] + random.uniform(0, WINDOW, len(part))
        return part[np.argsort(when, kind="stable")]

    def groups(self, indices: Sequence[int], *, size: int, rank: int, world_size: int) -> list[list[int]]:
        """A rank's batches of at most `size` frames. None has frames of two shards, or depends on the world size."""
        lined = self._lined(indices)
        ends = np.flatnonzero(np.diff(self._places[lined])) + 1
        each = [shard.tolist() for shard in np.split(lined, ends)]
        batches = [shard[start : start + size] for shard in each for start in range(0, len(shard), size)]
        return _cut(batches, rank=rank, world_size=world_size)

    def first(self, indices: Sequence[int], *, shards: int = IMAGE_SHARDS) -> list[int]:
        """Those of some frames that lie in the first few shards in line that have any."""
        lined = self._lined(indices)
        chosen: list[int] = lined[np.isin(self._places[lined], np.unique(self._places[lined])[:shards])].tolist()
        return chosen

    def _lined(self, indices: Sequence[int] | Indices) -> Indices:
        frames = np.sort(np.asarray(indices, np.int64))
        return frames[np.argsort(self._places[frames], kind="stable")]


def shard_order_of(source: Source, data: Data, *, seed: int) -> ShardOrder | None:
    """The line of a set's frames where they are dealt by shard, else None. Raises UsageError where there are none."""
    if data.order == "frames":
        return None
    if not isinstance(source, ShardedSource):
        raise UsageError(
            f"data.order=shards deals shards to workers, and data.source={data.source} has none; "
            "pack the data with `depthray data pack`, or leave data.order out"
        )
    return ShardOrder(source.shard_numbers, seed=seed)


def _cut(items: Items, *, rank: int, world_size: int) -> Items:
    """The rank-th of equal parts, up to one item."""
    return items[len(items) * rank // world_size : len(items) * (rank + 1) // world_size]
