"""The facts of frames as columns, from which a frame is made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from depthray.data.source import Frame
from depthray.errors import DataError

AT_ONCE = 1 << 16  # texts decoded in one go
SPLITS = ("", "train", "val", "test")  # what column `split` says first; other words are errors of whoever declared them


class Texts(Sequence[str]):
    """Texts in one array of bytes, and the end of each: no object a text."""

    def __init__(self, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.data, self.ends = data, ends  # (bytes,) UTF-8, (N,) int64

    @staticmethod
    def of(texts: Sequence[str]) -> Texts:
        """The same texts."""
        parts = [text.encode() for text in texts]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return Texts(np.frombuffer(b"".join(parts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[number] for number in range(*position.indices(len(self)))]
        number = range(len(self.ends))[position]
        start = int(self.ends[number - 1]) if number else 0
        return _decode(self.data[start : int(self.ends[number])].tobytes())

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(0, len(self), AT_ONCE):
            ends = self.ends[first : first + AT_ONCE].tolist()
            chunk = self.data[start : ends[-1]].tobytes()
            for end, begin in zip(ends, [start, *ends], strict=False):
                yield _decode(chunk[begin - start : end - start])
            start = ends[-1]


def _decode(data: bytes) -> str:
    # What is damaged is shown as such: it is the name of a frame, and no reason to fail.
    return data.decode(errors="replace")


class FrameColumns(Sequence[Frame]):
    """Frames by number, made when they are asked for."""

    def __init__(
        self,
        ids: Sequence[str],
        *,
        scene: NDArray[np.int32],
        split: NDArray[np.integer[Any]],
        source: NDArray[np.integer[Any]],
        scenes: Sequence[str],
        splits: Sequence[str],
        sources: Sequence[str],
        ids_differ: bool = False,
    ) -> None:
        self.ids = ids
        self.scene, self.split, self.source = scene, split, source  # (N,) numbers in the lists below
        self.scenes, self.splits, self.sources = scenes, splits, sources  # scenes in the order of their first frames
        self.ids_differ = ids_differ  # whether it is known that no two are equal

    @staticmethod
    def of(frames: Sequence[Frame]) -> FrameColumns:
        """The columns of frames; those of what has columns are its own."""
        if isinstance(frames, FrameColumns):
            return frames
        scenes, sources = Numbers(), Numbers()
        splits = Numbers(SPLITS)
        return FrameColumns(
            [frame.id for frame in frames],
            scene=np.array([scenes.number(frame.scene) for frame in frames], np.int32),
            split=np.array([splits.number(frame.split) for frame in frames], np.int32),
            source=np.array([sources.number(frame.source) for frame in frames], np.int32),
            scenes=scenes.names,
            splits=splits.names,
            sources=sources.names,
        )

    def __len__(self) -> int:
        return len(self.scene)

    @overload
    def __getitem__(self, number: int) -> Frame: ...
    @overload
    def __getitem__(self, number: slice) -> list[Frame]: ...
    def __getitem__(self, number: int | slice) -> Frame | list[Frame]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        number = range(len(self.scene))[number]
        try:
            return Frame(
                self.ids[number],
                self.scenes[int(self.scene[number])],
                self.splits[int(self.split[number])],
                self.sources[int(self.source[number])],
            )
        except IndexError:
            raise DataError(f"frame {number}: its facts in the index are damaged") from None

    def __iter__(self) -> Iterator[Frame]:
        known = list(self.scenes) if len(self.scenes) < len(self) else self.scenes  # decoded once, not once a frame
        ids = iter(self.ids)
        for start in range(0, len(self), AT_ONCE):
            columns = (column[start : start + AT_ONCE].tolist() for column in (self.scene, self.split, self.source))
            for scene, split, source in zip(*columns, strict=True):
                yield Frame(next(ids), known[scene], self.splits[split], self.sources[source])


class Numbers:
    """A number for each text, in the order in which they come first."""

    def __init__(self, first: Sequence[str] = ()) -> None:
        self._numbers = {text: number for number, text in enumerate(first)}

    def number(self, text: str) -> int:
        """The number of a text, new or not."""
        return self._numbers.setdefault(text, len(self._numbers))

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def names(self) -> list[str]:
        """The texts by number."""
        return list(self._numbers)
