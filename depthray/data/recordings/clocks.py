"""Which depth image belongs to which colour image, by their times; and clocks that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SECOND = 10**9  # nanoseconds
FEWEST = 20  # images of which a drift is estimated
ENDS = 0.2  # share of a recording at either end, over which the lag of a clock is averaged

Times = NDArray[np.int64]  # (N,) nanoseconds, ascending


class Stamped(NamedTuple):
    """An image in a recording."""

    time: int  # nanoseconds, by the clock that pairs are made by
    logged: int  # by that of the recorder
    position: Any  # in the recording
    camera: int = -1  # number of its camera; -1 = none


class Pairing(NamedTuple):
    """Pairs of colour and depth, as their numbers, and what was left."""

    pairs: list[tuple[int, int]]
    distances: NDArray[np.int64]  # (pairs,) nanoseconds, depth - colour
    colour_alone: int
    depth_alone: int
    nearest_alone: (
        int  # nanoseconds from a colour image without depth to the nearest depth, the median of all; -1 = none
    )


def in_order(images: Sequence[Stamped]) -> tuple[list[Stamped], int]:
    """The images in the order of their times, and how many were left out because their time is that of another."""
    ordered = sorted(images, key=lambda image: image.time)
    kept = [image for number, image in enumerate(ordered) if not number or image.time != ordered[number - 1].time]
    return kept, len(ordered) - len(kept)


def pair(colours: Times, depths: Times, *, bound: int) -> Pairing:
    """Pair what is nearest to each other, both ways, and at most `bound` nanoseconds apart: each image once at most."""
    if not len(colours) or not len(depths):
        return Pairing([], np.zeros(0, np.int64), len(colours), len(depths), -1)
    depth_of, colour_of = _nearest(colours, depths), _nearest(depths, colours)
    apart = np.abs(depths[depth_of] - colours)
    mutual = colour_of[depth_of] == np.arange(len(colours))
    chosen = np.flatnonzero(mutual & (apart <= bound))
    alone = apart[~(mutual & (apart <= bound))]
    return Pairing(
        pairs=[(int(number), int(depth_of[number])) for number in chosen],
        distances=depths[depth_of[chosen]] - colours[chosen],
        colour_alone=len(colours) - len(chosen),
        depth_alone=len(depths) - len(chosen),
        nearest_alone=int(np.median(alone)) if len(alone) else -1,
    )


def drift(colours: Sequence[Stamped], depths: Sequence[Stamped]) -> int:
    """Nanoseconds by which depth's clock moves against colour's, from beginning to end of a recording.

    The recorder's clock is the third that both are compared with: a sensor's lag is when a message was recorded, less
    its own time. A drift shows there even where each colour image has some depth near it in time.
    """
    if min(len(colours), len(depths)) < FEWEST:
        return 0
    (colour_first, colour_last), (depth_first, depth_last) = _lags(colours), _lags(depths)
    return (depth_first - depth_last) - (colour_first - colour_last)


def _nearest(times: Times, others: Times) -> NDArray[np.int64]:
    """(N,) times, (M,) others in ascending order -> (N,) the number of the nearest of the others"""
    after = np.clip(np.searchsorted(others, times), 1, max(len(others) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(others) - 1)
    return np.where(np.abs(others[after] - times) < np.abs(times - others[before]), after, before)


def _lags(images: Sequence[Stamped]) -> tuple[int, int]:
    """The median lag at the beginning and at the end, in the order of recording."""
    ordered = sorted(images, key=lambda image: image.logged)
    lags = np.array([image.logged - image.time for image in ordered], np.int64)
    part = max(1, int(len(lags) * ENDS))
    # int64 all the way: float64 has not enough digits for nanoseconds since 1970.
    first, last = (np.sort(lags[where])[part // 2] for where in (slice(None, part), slice(-part, None)))
    return int(first), int(last)
