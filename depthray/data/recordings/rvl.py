"""RVL, the lossless compression of 16-bit depth of Wilson, "Fast Lossless Depth Image Compression" (2017).

Runs of zeros and of other numbers take turns: the length of either, then the differences of the latter, all as numbers
of 3 bits a nibble, whose highest bit says that more follow. Nibbles are in words of 32 bits, the first in the highest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_NIBBLES = 11  # of a number of 32 bits


def decode(packed: bytes, count: int) -> NDArray[np.uint16]:
    """Packed bytes -> (count,) uint16; a ValueError where they are no RVL of as many pixels."""
    numbers = _numbers(packed)
    pixels = np.zeros(count, np.uint16)
    done, at, previous = 0, 0, 0
    while done < count:  # a turn for each run, of which an image has some thousand; the numbers in it at once
        if at + 2 > len(numbers):
            raise ValueError(f"{done} of {count} pixels")
        zeros, others = int(numbers[at]), int(numbers[at + 1])
        start, at, end = done + zeros, at + 2, at + 2 + others
        done = start + others
        if done > count or end > len(numbers) or not zeros + others:
            raise ValueError(f"a run beyond the end, after {start} of {count} pixels")
        if others:
            signed = numbers[at:end]
            values = previous + np.cumsum((signed >> 1) ^ -(signed & 1))
            pixels[start:done] = values.astype(np.uint16)
            previous, at = int(values[-1]), end
    return pixels


def _numbers(packed: bytes) -> NDArray[np.int64]:
    """Packed bytes -> all numbers of variable length in them"""
    words = np.frombuffer(packed[: len(packed) // 4 * 4], "<u4")
    nibbles = ((words[:, None] >> np.arange(28, -4, -4, dtype=np.uint32)) & 15).reshape(-1).astype(np.int64)
    lasts = np.flatnonzero(nibbles < 8)  # of each number
    if not lasts.size:
        return np.zeros(0, np.int64)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    if (lasts - firsts).max() >= MOST_NIBBLES:
        raise ValueError("a number of more than 32 bits")
    nibbles = nibbles[: lasts[-1] + 1]
    place = np.arange(len(nibbles)) - np.repeat(firsts, lasts - firsts + 1)
    return np.add.reduceat((nibbles & 7) << (3 * place), firsts)
