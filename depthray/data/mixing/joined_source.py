"""Several data sets as one: the frames of the first, then those of the second, and so on.

A frame's id and scene begin with the name of its set, which is its `source` too, and its side of the split is the one
that it has in its set. So whatever reads frames, splits them or scores them needs no other way for several sets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from depthray.data.source import LABELS, MEASURABLE, Frame, Place, ShardedSource, Source, StoredSource, notes
from depthray.data.split import SIDES, Split

if TYPE_CHECKING:
    from depthray.batch import Sample


@dataclass(frozen=True)
class Member:
    """One of the data sets."""

    name: str
    source: Source
    split: Split  # of its frames


class JoinedFrames(Sequence[Frame]):
    """The frames of several sets, made when asked for: each set keeps its own."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self.ends = list(accumulate(len(each.source.frames) for each in members))
        self._sides = [_sides(each) for each in members]

    def __len__(self) -> int:
        return self.ends[-1]

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        number, own = self.locate(index % len(self))
        return self._frame(number, own, self._members[number].source.frames[own])

    def __iter__(self) -> Iterator[Frame]:
        for number, each in enumerate(self._members):
            for own, frame in enumerate(each.source.frames):
                yield self._frame(number, own, frame)

    def locate(self, index: int) -> tuple[int, int]:
        """Index of a frame -> number of its set, and its index there."""
        number = bisect_right(self.ends, index)
        return number, index - (self.ends[number - 1] if number else 0)

    def _frame(self, number: int, own: int, frame: Frame) -> Frame:
        name = self._members[number].name
        return Frame(f"{name}/{frame.id}", f"{name}/{frame.scene}", SIDES[self._sides[number][own]], name)


def _sides(member: Member) -> NDArray[np.int8]:
    """-> (N) number of the side of each frame of a set"""
    sides = np.zeros(len(member.source.frames), np.int8)
    for number, indices in enumerate(member.split):
        sides[np.asarray(indices, np.int64)] = number
    return sides


class JoinedSource:
    """Two data sets and more as one. See `depthray.data.source.Source`."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self.frames = JoinedFrames(self.members)
        # The samples of a batch must have equal keys. What some sets alone know of a pixel is 0 in others.
        each = [each.source.keys for each in self.members]
        self._labels = frozenset.union(*each).intersection((*LABELS, MEASURABLE))
        self.keys = frozenset.intersection(*each) | self._labels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the sets, whatever they are called and wherever they are."""
        return sha256("\n".join(each.source.fingerprint for each in self.members).encode()).hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the sets have left out."""
        return tuple(f"{each.name}: {note}" for each in self.members for note in notes(each.source))

    @property
    def starts(self) -> list[int]:
        """The index of the first frame of each set, and the number of all frames."""
        return [0, *self.frames.ends]

    def set_of(self, index: int) -> int:
        """The number of the set of a frame."""
        return self.frames.locate(index)[0]

    def read(self, index: int) -> Sample:
        """Read one frame."""
        number, own = self.frames.locate(index)
        return self._called(number, self.members[number].source.read(own))

    def faults(self, index: int) -> list[str]:
        """Those of the set."""
        number, own = self.frames.locate(index)
        return self.members[number].source.faults(own)

    def _called(self, number: int, sample: Sample) -> Sample:
        """A sample of a set as one of all sets, with the keys that all have, and what some alone know."""
        name = self.members[number].name
        kept: Any = {key: value for key, value in sample.items() if key in self.keys or key == "depth_scale"}
        strings = {"id": f"{name}/{sample['id']}", "scene": f"{name}/{sample['scene']}", "source": name}
        lacking = self._labels - kept.keys()
        size = sample["image"].shape[:2]
        labels = {key: np.zeros(size, np.uint8 if key == MEASURABLE else np.float32) for key in sorted(lacking)}
        called: Any = kept | labels | strings
        return called  # type: ignore[no-any-return]


class JoinedShards(JoinedSource):
    """Sets of which some are in shards that may have to be downloaded. See `depthray.data.source.ShardedSource`."""

    @property
    def remote(self) -> bool:
        """Whether some of the shards have to be downloaded."""
        return any(each.remote for each in self._sharded if each)

    @property
    def shard_numbers(self) -> NDArray[np.int64]:
        """The number of the shard of each frame, those of the second set after those of the first."""
        return np.concatenate([each + first for each, first in zip(self._numbers, self._first_shards, strict=False)])

    def download(self, number: int) -> None:
        """Download a shard to this node where it is remote, for reading it soon."""
        for source, own in self._by_set([number]):
            if source.remote:
                source.download(own[0])

    def hold(self, numbers: Iterable[int]) -> None:
        """Open shards in this process, so that processes forked from it can read them as well."""
        for source, own in self._by_set(numbers):
            source.hold(own)

    def refuse_misfit(self, numbers: Iterable[int]) -> None:
        """Raise ResourceError where this node has no space for the shards of one of the sets at once."""
        for source, own in self._by_set(numbers):
            source.refuse_misfit(own)

    @property
    def _sharded(self) -> list[ShardedSource | None]:
        return [each.source if isinstance(each.source, ShardedSource) else None for each in self.members]

    @property
    def _numbers(self) -> list[NDArray[np.int64]]:
        """The number of the shard of each frame of each set; one without shards counts as one of them."""
        counts = [len(each.source.frames) for each in self.members]
        both = zip(self._sharded, counts, strict=True)
        return [each.shard_numbers[np.arange(count)] if each else np.zeros(count, np.int64) for each, count in both]

    @cached_property
    def _first_shards(self) -> list[int]:
        """The number of the first shard of each set, and that of all shards."""
        return [0, *accumulate(int(each.max()) + 1 for each in self._numbers)]

    def _by_set(self, numbers: Iterable[int]) -> Iterator[tuple[ShardedSource, list[int]]]:
        """The shards of each set in shards that has some of these, by their numbers there."""
        own: dict[int, list[int]] = {}
        for number in numbers:
            place = bisect_right(self._first_shards, number) - 1
            own.setdefault(place, []).append(number - self._first_shards[place])
        for place, shards in own.items():
            if source := self._sharded[place]:
                yield source, shards


class JoinedStored(JoinedShards):
    """Sets that are all in shards, whose depth can be had as stored. See `depthray.data.source.StoredSource`."""

    def read_stored(self, index: int, place: Place | None = None) -> Sample:
        """Read one frame, its depth in stored steps, with `depth_scale`."""
        number, own = self.frames.locate(index)
        source = self.members[number].source
        assert isinstance(source, StoredSource)
        return self._called(number, source.read_stored(own, place))


def join(members: Sequence[Member]) -> JoinedSource:
    """The sets as one, in their order."""
    sources = [each.source for each in members]
    if all(isinstance(each, ShardedSource) and isinstance(each, StoredSource) for each in sources):
        return JoinedStored(members)
    return (JoinedShards if any(isinstance(each, ShardedSource) for each in sources) else JoinedSource)(members)
