"""The frames of a rank's steps in an epoch, computed where they are asked for instead of kept in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.columns.permutation import Permutation
from depthray.data.columns.selection import Selection

Indices = NDArray[np.int64]

AT_ONCE = 1 << 14  # frames computed in one go: for few, most of the time would be that of calling NumPy
BLOCKS = 4
MOST_IN_TABLE = 1 << 22  # frames that data.shuffle=auto shuffles in a table. Part of the order: never change it


class StepLayout(NamedTuple):
    """Which positions of an epoch's order are in which micro-batch of a rank's steps."""

    batch_size: int  # of all ranks
    rank: int
    world_size: int
    accumulate: int  # micro-batches of a step

    @property
    def frames(self) -> int:
        """Frames of a micro-batch."""
        return self.batch_size // self.world_size // self.accumulate

    def positions(self, micro_batches: Indices) -> Indices:
        """Numbers (M,) of micro-batches, which are counted over the epoch -> positions (M,N) of their frames."""
        step, part = np.divmod(micro_batches, self.accumulate)
        # Global batches first, then this rank's part of each: their union is the same for any number of ranks.
        starts: Indices = step * self.batch_size + self.rank * (self.frames * self.accumulate) + part * self.frames
        positions: Indices = starts[:, None] + np.arange(self.frames)
        return positions


class StepFrames:
    """What an array (steps, micro-batches, frames) int64 would hold, or one (micro-batches, frames) of its rows.

    `frame_at` maps positions (N,) of the epoch's order to frames (N,): a plan is such a function and a layout.
    """

    def __init__(
        self, frame_at: Callable[[Indices], Indices], layout: StepLayout, steps: range, *, flat: bool = False
    ) -> None:
        self._frame_at, self._layout, self._steps, self._flat = frame_at, layout, steps, flat
        self._blocks: dict[int, Indices] = {}  # micro-batches computed last

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        parts = self._layout.accumulate
        return (len(self), self._layout.frames) if self._flat else (len(self), parts, self._layout.frames)

    def __len__(self) -> int:
        return len(self._steps) * (self._layout.accumulate if self._flat else 1)

    def __getitem__(self, position: Any) -> Any:
        """The frames (micro-batches, frames) of a step, or (frames,) of a micro-batch; of a slice of steps a copy."""
        if isinstance(position, slice):
            if self._flat:
                raise TypeError("micro-batches are not cut: cut the steps")
            return StepFrames(self._frame_at, self._layout, self._steps[position])
        number = range(len(self))[position]
        parts = self._layout.accumulate
        if self._flat:
            return self._rows(self._steps[number // parts] * parts + number % parts, 1)[0]
        return self._rows(self._steps[number] * parts, parts)

    def __iter__(self) -> Iterator[Indices]:
        return (self[number] for number in range(len(self)))

    def reshape(self, *_: int) -> StepFrames:
        """The micro-batches of all steps, one after the other, as `array.reshape(-1, frames)` has them."""
        return StepFrames(self._frame_at, self._layout, self._steps, flat=True)

    def _rows(self, first: int, count: int) -> Indices:
        """The frames (count, N) of micro-batches that follow each other."""
        parts = self._layout.accumulate
        many = parts * max(1, AT_ONCE // (parts * self._layout.frames))  # whole steps
        number = first // many
        if number not in self._blocks:
            # A few are kept, as downloads look ahead.
            for oldest in list(self._blocks)[: -BLOCKS + 1]:
                del self._blocks[oldest]
            positions = self._layout.positions(
                np.arange(number * many, min((number + 1) * many, self._steps.stop * parts))
            )
            self._blocks[number] = self._frame_at(positions.ravel()).reshape(positions.shape)
        return self._blocks[number][first - number * many :][:count]


def uses_table(shuffle: str, count: int) -> bool:
    """Whether an epoch of so many frames is shuffled in a table, in the order that all versions had."""
    return shuffle == "table" or (shuffle == "auto" and count <= MOST_IN_TABLE)


def shuffled(frames: Sequence[int], *, seed: int, epoch: int) -> Callable[[Indices], Indices]:
    """A function of positions (N,) -> frames (N,): an order of all frames, each once, of which no table is kept."""
    permutation = Permutation(len(frames), seed, epoch)
    if isinstance(frames, Selection):
        return lambda positions: frames.take(permutation.take(positions))
    table = np.asarray(frames, np.int64)
    return lambda positions: table[permutation.take(positions)]
