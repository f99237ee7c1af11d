"""A permutation that is computed position by position, without a table of it.

An alternating Feistel network permutes the numbers of b bits for whatever round function: one part of the bits is
changed by a function of the other, in turn. Numbers that it maps beyond the count are mapped again until they are
within ("cycle walking"), so that it permutes any count. Both are from J. Black and P. Rogaway, "Ciphers with Arbitrary
Finite Domains", CT-RSA 2002, and shuffle data on GPUs in R. Mitchell, D. Stokes, E. Frank and G. Holmes,
"Bandwidth-Optimal Random Shuffling for GPUs", ACM TOPC 9(1), 2022, who need 24 rounds for small counts. The round
function is the finaliser of MurmurHash3 (A. Appleby, public domain); it shuffles well and hides nothing.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Words = NDArray[np.uint64]

ROUNDS = 24
LEAST_BITS = 4  # fewer would give few permutations; the rest is walked over


class Permutation:
    """A permutation of 0 to `count` - 1 that follows from some numbers, such as a seed and an epoch."""

    def __init__(self, count: int, *numbers: int) -> None:
        self.count = count
        bits = max(LEAST_BITS, (count - 1).bit_length())
        self._low = np.uint64(bits // 2)  # bits of the lower part
        self._masks = tuple(np.uint64((1 << part) - 1) for part in (bits // 2, bits - bits // 2))
        # One key a round, which no change of the same kind in seed and epoch can repeat.
        text = ":".join(map(str, numbers)).encode()
        digests = (blake2b(text, digest_size=8, salt=bytes([number])).digest() for number in range(ROUNDS))
        self._keys = [np.uint64(int.from_bytes(digest, "little")) for digest in digests]

    def take(self, positions: Indices) -> Indices:
        """(N,) positions -> (N,) numbers there, each position's own."""
        values = self._encrypt(positions.astype(np.uint64))
        while len(outside := np.flatnonzero(values >= self.count)):
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: Words) -> Words:
        """A permutation of the numbers of so many bits."""
        small, large = self._masks
        low, high = values & small, values >> self._low
        for number, key in enumerate(self._keys):
            if number % 2:
                low ^= _mixed(high ^ key) & small
            else:
                high ^= _mixed(low ^ key) & large
        return (high << self._low) | low


def _mixed(words: Words) -> Words:
    """The finaliser of MurmurHash3, in place: each bit of the input changes each of the output with probability 1/2."""
    words ^= words >> np.uint64(33)
    words *= np.uint64(0xFF51AFD7ED558CCD)
    words ^= words >> np.uint64(33)
    words *= np.uint64(0xC4CEB9FE1A85EC53)
    words ^= words >> np.uint64(33)
    return words
