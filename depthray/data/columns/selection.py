"""A set of frame numbers as bits: one bit a frame and a count for every 64, instead of 8 bytes a number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

WORD = 64  # bits that are counted together
AT_ONCE = 1 << 16  # numbers looked up in one go: 4 MiB of bits


class Selection(Sequence[int]):
    """Frame numbers, ascending and each once: a sequence like a list of them, and equal to one.

    Of 50 million frames it has 9 MB, however they are spread.
    """

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words  # (W,) the bit of frame n is bit n % 64 of word n // 64
        counts = np.bitwise_count(words)
        total = int(counts.sum(dtype=np.int64))
        # (W+1,) members before each word.
        self._before: NDArray[Any] = np.zeros(len(words) + 1, np.uint32 if total < 2**32 else np.int64)
        np.cumsum(counts, out=self._before[1:])

    @staticmethod
    def of_masks(masks: Iterable[Mask]) -> Selection:
        """The frames that are True in masks which follow each other; but for the last their lengths are whole words."""
        return _join([np.packbits(mask, bitorder="little") for mask in masks])

    @staticmethod
    def by_value(parts: Iterable[NDArray[np.integer[Any]]], count: int) -> list[Selection]:
        """The frames of each value from 0 to `count` - 1, of values that come in parts as in `of_masks`."""
        packed: list[list[NDArray[np.uint8]]] = [[] for _ in range(count)]
        for part in parts:
            for value in range(count):
                packed[value].append(np.packbits(part == value, bitorder="little"))
        return [_join(each) for each in packed]

    @staticmethod
    def of(numbers: ArrayLike) -> Selection:
        """The frames of some numbers, in any order."""
        if isinstance(numbers, Selection):
            return numbers
        array = np.asarray(numbers, np.int64)
        mask = np.zeros(int(array.max()) + 1 if array.size else 0, np.bool_)
        mask[array] = True
        return Selection.of_masks([mask])

    @staticmethod
    def all(count: int) -> Selection:
        """The frames 0 to `count` - 1."""
        words = np.full(-(-count // WORD), ~np.uint64(0), "<u8")
        if count % WORD:
            words[-1] = np.uint64((1 << count % WORD) - 1)
        return Selection(words)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self._words.nbytes + self._before.nbytes)

    def __len__(self) -> int:
        return int(self._before[-1])

    @overload
    def __getitem__(self, position: int) -> int: ...
    @overload
    def __getitem__(self, position: slice) -> list[int]: ...
    def __getitem__(self, position: int | slice) -> int | list[int]:
        if isinstance(position, slice):
            return [int(number) for number in self.take(np.arange(*position.indices(len(self))))]
        if not -len(self) <= position < len(self):
            raise IndexError(f"position {position} of {len(self)} frames")
        return int(self.take(np.array([position % len(self)]))[0])

    def __iter__(self) -> Iterator[int]:
        for numbers in self._parts():
            yield from numbers.tolist()

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, (int, np.integer)) or not 0 <= number < len(self._words) * WORD:
            return False
        return bool((int(self._words[int(number) // WORD]) >> (int(number) % WORD)) & 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Sequence, np.ndarray)):
            return NotImplemented
        return len(self) == len(other) and bool(np.array_equal(np.asarray(self), np.asarray(other)))

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self[:5]))
        return f"<{len(self)} frames: {shown}{', ...' if len(self) > 5 else ''}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        numbers = np.concatenate([np.empty(0, np.int64), *self._parts()])
        return numbers.astype(dtype or np.int64, copy=False)

    def take(self, positions: Indices) -> Indices:
        """Positions from 0 in any order -> the frame numbers there."""
        numbers = np.empty(len(positions), np.int64)
        for start in range(0, len(positions), AT_ONCE):
            part = positions[start : start + AT_ONCE]
            # In their dtype, or NumPy would convert all of them for each call.
            word = np.searchsorted(self._before, part.astype(self._before.dtype), side="right") - 1
            bits = np.unpackbits(self._words[word].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
            # The bit at which the count of members in the word goes beyond those to skip.
            skip = (part - self._before[word]).astype(np.uint8)
            bit = np.argmax(np.cumsum(bits, axis=1, dtype=np.uint8) > skip[:, None], axis=1)
            numbers[start : start + len(part)] = word * WORD + bit
        return numbers

    def mask(self, start: int, stop: int) -> Mask:
        """Whether each frame from `start`, a multiple of 64, to before `stop` is a member."""
        words = self._words[start // WORD : -(-stop // WORD)]
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: stop - start].astype(np.bool_)
        return np.pad(bits, (0, stop - start - len(bits)))

    def _parts(self) -> Iterator[Indices]:
        for start in range(0, len(self._words) * WORD, AT_ONCE):
            yield start + np.flatnonzero(self.mask(start, start + AT_ONCE))

    def count_below(self, bounds: ArrayLike) -> Indices:
        """Frame numbers -> how many members are below each."""
        numbers = np.minimum(np.asarray(bounds, np.int64), len(self._words) * WORD)
        word, bit = np.divmod(numbers, WORD)
        counts = self._before[word].astype(np.int64)
        inside = bit > 0
        below = self._words[word[inside]] & ((np.uint64(1) << bit[inside].astype(np.uint64)) - np.uint64(1))
        counts[inside] += np.bitwise_count(below)
        return counts


def _join(packed: list[NDArray[np.uint8]]) -> Selection:
    """Bits in parts -> a selection, padded to whole words."""
    joined = np.concatenate(packed) if packed else np.empty(0, np.uint8)
    words = np.zeros(-(-len(joined) // 8), "<u8")
    words.view(np.uint8)[: len(joined)] = joined
    return Selection(words)
