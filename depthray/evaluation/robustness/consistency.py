"""A network against itself: the depth of a place in crops of a photograph, and in consecutive frames of a clip.

Neither needs a true depth. All differences are of ln depth, as 0.01 is one per cent of any distance.

Flicker is the warping error of consecutive frames: depth of a frame is moved by optical flow onto the frame before, and
compared there, as OPW of NVDS has it (Wang et al. 2023, arXiv:2307.08695). Pixels are weighted by how well the picture
fits after the same move, exp(-50 |I - I'|^2) of colours in [0,1], as Lai et al. 2018 (arXiv:1808.00449) weigh what is
hidden or wrongly matched; here their mean is taken, and of the logarithm. A camera that walks forward changes depth
truly, by a per cent or so a frame: compare networks on one clip, or take one of a camera that stands or turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depthray.batch import collate, to_device
from depthray.config.sections import Recipe
from depthray.data.resize import resize_colour, resize_for_inference
from depthray.errors import DataError, UsageError
from depthray.imaging import video
from depthray.runtimes.open import OpenedModel
from depthray.runtimes.passes import Passes, run

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)  # of both sides of a photograph
STRICTNESS = 50.0  # of weights
CUT = 0.05  # mean weight below which two frames do not show the same
LEAST = 1e-3  # metres, for logarithms

Rgb = NDArray[np.uint8]
Map = NDArray[np.float32]
Depth = Callable[[Rgb], Map]  # (H,W,3) -> (h,w) metres, of the size that the network computes at


class CropChange(NamedTuple):
    """How depth changes where only a part of the photograph is seen."""

    share: float  # of both sides
    factor: float  # by which metres of the part are multiplied: the median of frames and pixels
    change: float  # mean of frames: mean |difference of ln depth|
    shape: float  # the same after the factor of each frame


class PairChange(NamedTuple):
    """How depth changes from a frame to the next."""

    change: float  # weighted mean |difference of ln depth|
    scale: float  # |weighted mean difference|: what the whole picture has in common
    weight: float  # mean weight of the pixels, in [0,1]


class Flicker(NamedTuple):
    """How depth of a clip changes from frame to frame."""

    pairs: tuple[PairChange, ...]
    cuts: int  # pairs that do not show the same, which are left out

    @property
    def change(self) -> float:
        """The mean over pairs."""
        return float(np.mean([pair.change for pair in self.pairs]))

    @property
    def scale(self) -> float:
        """The part of it that the whole picture has in common."""
        return float(np.mean([pair.scale for pair in self.pairs]))

    @property
    def worst(self) -> float:
        """What one pair in twenty exceeds."""
        return float(np.quantile([pair.change for pair in self.pairs], 0.95))


def sees_photographs_alone(recipe: Recipe) -> bool:
    """Whether a network needs nothing but photographs: crops and clips have no further inputs and no camera."""
    data = recipe.data
    return data.inputs == ("image",) and not data.canonical_focal and "depth" in data.targets


def depth_of(opened: OpenedModel, recipe: Recipe, device: torch.device) -> Depth:
    """What a network predicts of a photograph, by the passes of its evaluation."""
    data, passes = recipe.data, replace(Passes.of(recipe.eval), tiles=1)
    network = opened.network.eval()

    def depth(rgb: Rgb) -> Map:
        sample: Any = {"image": rgb, "id": "", "scene": "", "source": ""}
        batch = collate([resize_for_inference(sample, data)])
        batch = to_device(batch, device, min_depth=data.min_depth, max_depth=data.max_depth)
        with torch.no_grad():
            predicted = run(network, batch, passes)["depth"]
        return np.asarray(predicted[0, 0].float().cpu().numpy(), np.float32)

    return depth


def crops(depth: Depth, photographs: Iterable[tuple[int, Rgb]]) -> tuple[CropChange, ...]:
    """Photographs with their numbers -> how depth changes in crops of each of SHARES, whose place the number draws."""
    found: list[list[tuple[float, float, float]]] = [[] for _ in SHARES]
    for index, rgb in photographs:
        whole = _log(depth(rgb))
        for number, share in enumerate(SHARES):
            rows, columns = _box(rgb.shape[:2], share, np.random.default_rng((index, number)))
            part = _log(depth(np.ascontiguousarray(rgb[rows, columns])))
            difference = part - _cut_out(whole, rgb.shape[:2], rows, columns, (part.shape[0], part.shape[1]))
            factor = float(np.median(difference))
            found[number].append((factor, float(np.abs(difference).mean()), float(np.abs(difference - factor).mean())))
    return tuple(
        CropChange(share, float(np.exp(np.median(each[:, 0]))), float(each[:, 1].mean()), float(each[:, 2].mean()))
        for share, each in zip(SHARES, map(np.array, found), strict=True)
    )


def flicker(depth: Depth, frames: Iterable[Rgb], *, name: str) -> Flicker:
    """Consecutive frames -> how their depth changes. Raises DataError for fewer than two that show the same."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pairs: list[PairChange] = []
    before: tuple[Map, Rgb] | None = None
    for rgb in frames:
        log = _log(depth(rgb))
        now = log, resize_colour(rgb, (log.shape[0], log.shape[1]))
        if before is not None:
            pairs.append(_pair(before, now, flow))
        before = now
    kept = tuple(pair for pair in pairs if pair.weight >= CUT)
    if not kept:
        raise DataError(f"{name}: no two consecutive frames show the same; give a clip of several frames")
    return Flicker(kept, len(pairs) - len(kept))


def clip_frames(path: Path, most: int) -> Iterator[Rgb]:
    """The first frames of a video, (H,W,3) uint8 RGB."""
    if video.CAMERA.fullmatch(str(path)):
        raise UsageError(f"--clip {path}: give a file, which networks can be compared on")
    with video.open_video(path) as opened:
        yield from (frame.rgb for frame in islice(opened, most))


def _log(depth: Map) -> Map:
    return np.log(np.maximum(depth, np.float32(LEAST)))


def _box(size: tuple[int, ...], share: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a part of a picture (H,W)."""
    height, width = (max(1, round(share * side)) for side in size)
    top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def _cut_out(whole: Map, size: tuple[int, ...], rows: slice, columns: slice, result: tuple[int, int]) -> Map:
    """(h,w) map of a picture (H,W) -> the part of it in these rows and columns of the picture, resized bilinearly"""
    steps = []
    for span, of_picture, of_map, of_result in zip((rows, columns), size, whole.shape, result, strict=True):
        # Edges coincide, not pixel centres.
        ratio = of_map / of_picture
        factor = (span.stop - span.start) / of_result * ratio
        steps.append((factor, factor / 2 + span.start * ratio - 0.5))
    (down, top), (across, left) = steps
    matrix = np.array([[across, 0, left], [0, down, top]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(whole, matrix, result[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE))


def _pair(before: tuple[Map, Rgb], now: tuple[Map, Rgb], flow: cv2.DISOpticalFlow) -> PairChange:
    """ln depth (h,w) and picture (h,w,3) of two frames -> how the second differs, moved onto the first."""
    log, picture = before
    grey, next_grey = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (picture, now[1]))
    motion = flow.calc(grey, next_grey, np.zeros((*grey.shape, 2), np.float32))
    height, width = grey.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + motion[..., 0], y + motion[..., 1]
    moved = [cv2.remap(each, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for each in now]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    misfit = np.square((moved[1].astype(np.float32) - picture) / 255).sum(axis=2)
    weights = np.where(inside, np.exp(-STRICTNESS * misfit), 0).astype(np.float64)
    total, difference = max(float(weights.sum()), 1e-12), moved[0] - log
    return PairChange(
        float((weights * np.abs(difference)).sum() / total),
        abs(float((weights * difference).sum() / total)),
        float(weights.mean()),
    )
