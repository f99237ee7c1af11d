"""Which training frames an epoch has, where it has not all of them: shares of several sets, or a part of one.

Each set has an order, drawn from the recipe's seed, that begins again after its last frame. An epoch takes the frames
that follow those of the epoch before, so no frame is in it twice, and after some epochs all of a set have been used
equally often. The weights of sets may change from stage to stage, each of some epochs: all epochs have equally many
frames, and sets other shares of them. All is a function of (seed, epoch): a resumed run and any number of workers agree
without a message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from depthray.config.sections import Curriculum, Data
from depthray.data.curriculum import chunk_at, cut_into_chunks
from depthray.data.mixing.joined_source import JoinedSource
from depthray.data.source import Source
from depthray.errors import DataError, UsageError, count_of

Indices = NDArray[np.int64]

ROUNDING = 1e-9  # of a share of frames that is a whole number


class SetOrders:
    """The orders in which sets of training frames are used up."""

    def __init__(self, sets: Sequence[Indices], *, seed: Sequence[int]) -> None:
        """`sets` are the indices of each set's frames."""
        # The order of a set depends on no other one, so that another weight changes how many there are and no more.
        self._orders = [np.random.default_rng([*seed, number]).permutation(each) for number, each in enumerate(sets)]

    def take(self, counts: Sequence[int], *, after: Sequence[int]) -> Indices:
        """-> (sum of counts) so many frames of each set, after so many that were used; in no order that matters."""
        places = [np.arange(first, first + count) for first, count in zip(after, counts, strict=True)]
        return np.concatenate([order[each % len(order)] for order, each in zip(self._orders, places, strict=True)])


def most_frames(sets: Sequence[Sequence[int] | Indices], weights: Sequence[float]) -> int:
    """How many frames an epoch of these sets can have without one of them twice: it ends where a set is used up."""
    shares = _shares(weights)
    return int(min(len(each) / share for each, share in zip(sets, shares, strict=True) if share) + ROUNDING)


class ChosenFrames:
    """The frames of the epochs of a run; with a curriculum of chunks, of each chunk of each set."""

    def __init__(
        self, sets: Sequence[list[int]], data: Data, source: Source, section: Curriculum, *, seed: int
    ) -> None:
        stages = data.weight_stages or [(1.0,)]
        chunks = [cut_into_chunks(each, source, section, seed=seed) for each in sets]  # (sets, chunks)
        by_chunk = [[np.asarray(each, np.int64) for each in of_sets] for of_sets in zip(*chunks, strict=True)]
        # All epochs have equally many steps, so that the schedule is a pure function of the step.
        most = min(most_frames(each, weights) for each in by_chunk for weights in stages)
        self.size = data.epoch_frames or most
        if self.size > most:
            raise UsageError(
                f"data.epoch_frames={self.size} is more than the {most} frames that an epoch can have without one of "
                "them twice; lower it, or leave it out"
            )
        self._section = section
        self._chunks = [SetOrders(each, seed=(seed, number)) for number, each in enumerate(by_chunk)]
        # By stage, the frames of each set in an epoch.
        self.counts = [_whole(_shares(weights) * self.size) for weights in stages]

    def of(self, epoch: int) -> list[int]:
        """The frames of an epoch (from 0)."""
        chunk, _ = chunk_at(epoch, self._section)
        counts = self.counts[self._stage(epoch)]
        # How many epochs of each stage have used frames of this chunk before.
        before = Counter(self._stage(each) for each in range(epoch) if chunk_at(each, self._section)[0] == chunk)
        used = [sum(self.counts[stage][of] * times for stage, times in before.items()) for of in range(len(counts))]
        return self._chunks[chunk].take(counts, after=used).tolist()  # type: ignore[no-any-return]

    def first_epoch(self, stage: int) -> int:
        """The first epoch (from 0) of a stage of the weights."""
        return stage * self._section.epochs_per_set_weight

    def _stage(self, epoch: int) -> int:
        return min(epoch // self._section.epochs_per_set_weight, len(self.counts) - 1)


def chosen_frames_of(
    source: Source, train: Sequence[int], data: Data, section: Curriculum, *, seed: int
) -> ChosenFrames | None:
    """What chooses the frames of an epoch; None where it has all of `train`, or of a chunk. `data` is resolved.

    Raises DataError for a set without training frames, UsageError where data.epoch_frames is more than there are.
    """
    if not (isinstance(source, JoinedSource) or data.epoch_frames):
        return None
    sets = [list(train)]
    if isinstance(source, JoinedSource):
        indices = np.asarray(train, np.int64)  # ascending
        sets = [each.tolist() for each in np.split(indices, np.searchsorted(indices, source.starts[1:-1]))]
        for each, member in zip(sets, source.members, strict=True):
            if not each:
                raise DataError(
                    f"data.sets: '{member.name}' has no frames to train on; leave it out with weight=0, and name it in "
                    "eval.also if it is to be scored"
                )
    return ChosenFrames(sets, data, source, section, seed=seed)


def describe(chosen: ChosenFrames, source: JoinedSource) -> str:
    """How many frames of each set an epoch has, and from which epoch (from 1) on other numbers."""
    first, *others = chosen.counts
    parts = (
        f"{count} of {count_of(len(member.split.train), 'frame')} of {member.name}"
        for count, member in zip(first, source.members, strict=True)
    )
    later = (
        f"; from epoch {chosen.first_epoch(stage) + 1} on {', '.join(map(str, counts))}"
        for stage, counts in enumerate(others, start=1)
    )
    return f"an epoch has {', '.join(parts)}{''.join(later)}"


def _shares(weights: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(weights, np.float64) / sum(weights)


def _whole(amounts: NDArray[np.float64]) -> list[int]:
    """Amounts whose sum is whole -> whole numbers of the same sum: the largest remainders are rounded up."""
    counts = np.floor(amounts + ROUNDING).astype(int)
    missing = round(float(amounts.sum())) - int(counts.sum())
    counts[np.argsort(counts - amounts, kind="stable")[:missing]] += 1
    return counts.tolist()  # type: ignore[no-any-return]
