"""Images of one side of a split that look like one of another side, by a perceptual hash.

Equal bytes are found by their SHA-256; this finds the same picture at another size or quality, and frames of a camera
that stood still.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.source import Frame

SIDE = 8  # of the grid, whose neighbours are compared across and down: 128 bits
BITS = 2 * SIDE * SIDE
CLOSE = 5  # bits in which two pictures of one view differ at most
FLAT = 6.0  # standard deviation in grey levels of the grid, below which a picture has too little in it to compare


class Lookalike(NamedTuple):
    """A frame, and one of another side that shows the same."""

    frame: Frame
    other: Frame


def picture_hash(image: NDArray[np.uint8]) -> int:
    """(H,W,3) RGB -> 128 bits that stay as the picture is resized, compressed or brightened; -1 of a flat one"""
    grey = cv2.cvtColor(cv2.resize(image, (SIDE + 1, SIDE + 1), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    if grey.std() < FLAT:
        return -1
    levels = grey.astype(np.int16)
    across, down = levels[:-1, 1:] > levels[:-1, :-1], levels[1:, :-1] > levels[:-1, :-1]
    return int.from_bytes(np.packbits(np.stack([across, down])).tobytes(), "big")


def find_lookalikes(frames: Sequence[Frame], hashes: Sequence[int]) -> Iterator[Lookalike]:
    """The frames that look like one of another declared side, each with one such; a hash below 0 is of none."""
    if len({frame.split for frame in frames} - {""}) == 0:
        return
    sides = [frame.split or "train" for frame in frames]  # as an index reads an empty one
    # Of CLOSE + 1 parts at least one is the same in both, so that only those need to be compared.
    parts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, value in enumerate(hashes):
        if value < 0:
            continue
        keys = [
            (part, value >> part * BITS // (CLOSE + 1) & (1 << BITS // (CLOSE + 1)) - 1) for part in range(CLOSE + 1)
        ]
        near = (other for key in keys for other in parts[key] if sides[other] != sides[index])
        found = next((other for other in near if (hashes[other] ^ value).bit_count() <= CLOSE), None)
        if found is not None:
            yield Lookalike(frames[index], frames[found])
        for key in keys:
            parts[key].append(index)
