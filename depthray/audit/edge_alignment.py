"""Whether edges of depth are where edges of colour are, over the frames of a data set.

A frame is looked at with a width of `WIDTH` pixels. Its agreement at a shift is the mean colour gradient at the edges
of depth moved by that shift, in multiples of the gradient's mean over the frame: about 1 where the two have nothing to
do with each other, above it where they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.source import Source
from depthray.errors import DataError, count_of

FRAMES = 64  # that are looked at most
WIDTH = 320  # pixels across, in which a frame is looked at
REACH = 24  # pixels by which depth is moved, at most
STEP = 0.08  # an edge: depth changes by this share from one pixel to the next
SHADOW = 10  # pixels: unmeasured gaps up to it, as beside near objects, have the depth of what is behind
SHARE = (0.002, 0.15)  # of a frame's pixels that are edges: fewer say nothing, more are noise
FEWEST = 8  # frames with edges, below which nothing is said
TOLERANCE = 4  # pixels of WIDTH by which the best shift of a good data set may differ from none
SURE = 4.0  # standard errors by which the best shift must be better than none
RELATED = 1.25  # agreement at the best shift, below which the edges have nothing to do with each other
STANDS_OUT = 1.5  # deviations of a frame's agreements by which the one without a shift stands out, where it is right
DOUBTFUL = 0.25  # share of what is usual in a data set, below which a frame is doubtful

Maps = NDArray[np.float64]
Verdict = Literal["agree", "shifted", "unrelated"]


class EdgeAlignment(NamedTuple):
    """How edges of depth and colour agree in some frames."""

    frames: int  # with edges
    agreement: float  # without a shift
    best: float  # at the best shift
    shift: tuple[float, float]  # right and down, as shares of the width, by which depth has to be moved
    verdict: Verdict
    doubtful: list[str]  # ids of frames whose edges do not agree, where those of the others do

    def describe(self) -> str:
        """The alignment as a sentence."""
        across, down = (round(100 * part, 1) for part in self.shift)
        if self.verdict == "shifted":
            return (
                f"edges of depth agree with those of colour best where depth is moved by {across:+g} % of the width "
                f"across and {down:+g} % down (agreement {self.best:.2f}, as it is {self.agreement:.2f}): is depth "
                "registered to colour, and of the same size and moment?"
            )
        if self.verdict == "unrelated":
            return (
                f"edges of depth are nowhere near those of colour (agreement {self.agreement:.2f}, at no shift above "
                f"{self.best:.2f}): does the depth belong to these images?"
            )
        return f"edges of depth and colour agree ({self.agreement:.2f}, by chance 1; {count_of(self.frames, 'frame')})"


def inspect_alignment(source: Source) -> dict[str, EdgeAlignment]:
    """The alignment of frames of each set in a source, by its name; sets with few frames with edges have none."""
    groups: dict[str, list[int]] = {}
    for index, frame in enumerate(source.frames):
        groups.setdefault(frame.source, []).append(index)
    found = {}
    for name, indices in groups.items():
        size = min(len(indices), max(FRAMES // len(groups), FEWEST))
        maps = {}
        for number in range(size):
            index = indices[number * len(indices) // size]
            if (own := _agreement_of(source, index)) is not None:
                maps[source.frames[index].id] = own
        if len(maps) >= FEWEST:
            found[name] = judge(maps)
    return found


def judge(maps: Mapping[str, Maps]) -> EdgeAlignment:
    """The agreement of frames by their ids, (2 REACH + 1, 2 REACH + 1) by shift -> the alignment"""
    stack = np.stack(list(maps.values()))
    mean = cv2.GaussianBlur(stack.mean(axis=0), (0, 0), 1.0)
    row, column = (int(each) for each in np.unravel_index(int(mean.argmax()), mean.shape))
    down, across = row - REACH, column - REACH
    near = _around(stack, REACH, REACH)
    gain = _around(stack, row, column) - near
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) + 1e-9
    best = float((near + gain).mean())
    apart = max(abs(down), abs(across)) > TOLERANCE
    centre = stack[:, *(slice(REACH - TOLERANCE, REACH + TOLERANCE + 1),) * 2].max(axis=(1, 2))
    flat = stack.reshape(len(stack), -1)
    outstanding = (centre - np.median(flat, axis=1)) / (flat.std(axis=1) + 1e-9)
    usual = float(np.median(outstanding))
    verdict: Verdict = "agree"
    if best < RELATED and usual < STANDS_OUT:
        verdict = "unrelated"
    elif best >= RELATED and apart and float(gain.mean()) > SURE * error:
        verdict = "shifted"
    doubtful = [name for name, each in zip(maps, outstanding, strict=True) if each < usual * DOUBTFUL]
    shift = (across / WIDTH, down / WIDTH)
    return EdgeAlignment(len(maps), float(near.mean()), best, shift, verdict, doubtful if verdict == "agree" else [])


def _around(stack: Maps, row: int, column: int) -> Maps:
    """(N,H,W) agreements -> (N,) their means around a shift"""
    rows, columns = (slice(max(0, at - 1), at + 2) for at in (row, column))
    return np.asarray(stack[:, rows, columns].mean(axis=(1, 2)))


def agreement(image: NDArray[np.uint8], depth: NDArray[np.float32]) -> Maps | None:
    """(H,W,3) colour, (H,W) metres -> (49,49) agreement by shift, down and across; None where depth has no edges."""
    height = max(2 * REACH + 2, round(WIDTH * image.shape[0] / image.shape[1]))
    size = (WIDTH, height)
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    edges = depth_edges(np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST), np.float32))
    if not SHARE[0] <= edges.mean() <= SHARE[1]:
        return None
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    gradient = np.hypot(*(cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))))
    if not gradient.any():
        return None
    # A few strong edges, as of a lamp, would decide for all others.
    gradient = np.minimum(gradient / gradient.mean(), 4.0)
    gradient /= gradient.mean()
    return _correlate(edges, gradient)


def depth_edges(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H,W) metres -> (H,W) 1 where depth changes abruptly to the next pixel, else 0"""
    filled = np.maximum(_fill_shadows(depth), _fill_shadows(depth[:, ::-1])[:, ::-1])
    filled = np.where(depth > 0, depth, filled)
    edges = np.zeros(depth.shape, np.float32)
    for axis in (0, 1):
        near, far = (np.take(filled, range(start, filled.shape[axis] - 1 + start), axis=axis) for start in (0, 1))
        jump = (near > 0) & (far > 0) & (np.abs(far - near) > STEP * np.minimum(near, far))
        edges[: jump.shape[0], : jump.shape[1]] = np.maximum(edges[: jump.shape[0], : jump.shape[1]], jump)
    return edges


def _fill_shadows(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H,W) metres -> (H,W) with gaps of at most SHADOW pixels filled from their left"""
    columns = np.arange(depth.shape[1])
    last = np.maximum.accumulate(np.where(depth > 0, columns, -1), axis=1)
    values = np.take_along_axis(depth, np.maximum(last, 0), axis=1)
    return np.where((last >= 0) & (columns - last <= SHADOW), values, 0).astype(np.float32)


def _correlate(edges: NDArray[np.float32], gradient: NDArray[np.float32]) -> Maps:
    """The mean gradient at the edges moved by each shift, those that leave the image not counted."""
    padded = tuple(side + 2 * REACH for side in edges.shape)
    spectrum = np.conj(np.fft.rfft2(edges, padded))
    both = [np.fft.irfft2(spectrum * np.fft.rfft2(each, padded), padded) for each in (gradient, np.ones(edges.shape))]
    shifts = np.arange(-REACH, REACH + 1)
    total, count = (each[np.ix_(shifts, shifts)] for each in both)
    return np.asarray(total / np.maximum(count, 1), np.float64)


def _agreement_of(source: Source, index: int) -> Maps | None:
    try:
        sample = source.read(index)
    except DataError:  # which `check` reports by itself
        return None
    return agreement(sample["image"], sample["depth"])
