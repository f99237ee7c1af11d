"""Fits of a prediction to the truth before it is scored, for protocols by which only its shape counts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from depthray.config.sections import DepthKind


def align_depth(depth: Tensor, truth: Tensor, *, valid: Tensor, limits: tuple[float, float]) -> Tensor:
    """(B,1,H,W) metres and bool -> (B,1,H,W) metres, scale * depth + shift of each frame nearest its valid truth."""
    return _fit_affine(depth.double(), truth.double(), valid).to(depth.dtype)


def align_disparity(depth: Tensor, truth: Tensor, *, valid: Tensor, limits: tuple[float, float]) -> Tensor:
    """(B,1,H,W) metres and bool -> (B,1,H,W) metres, 1 / (scale / depth + shift) nearest the valid truth in 1/m.

    A fitted disparity below that of the upper limit, such as zero and less, becomes that of the limit.
    """
    low, high = limits
    disparity = 1 / depth.double().clamp(min=low)  # a depth of 0 and less has no disparity
    # Fitted in disparity, as MiDaS and Depth Anything are scored; Marigold's fit in depth gives other numbers.
    fitted = _fit_affine(disparity, 1 / torch.where(valid, truth, 1.0).double(), valid)
    return (1 / fitted.clamp(1 / high, 1 / low)).to(depth.dtype)


def align_median(depth: Tensor, truth: Tensor, *, valid: Tensor, limits: tuple[float, float]) -> Tensor:
    """(B,1,H,W) metres and bool -> (B,1,H,W) metres, each frame times median(truth) / median(depth) of valid pixels.

    Of an even number of pixels the median is the mean of the two in the middle. A prediction whose median is not above
    0 has no scale: all of it becomes 0, the nearest there is.
    """
    factors = [
        _ratio(d[v], p[v]) if v.any() else d.new_ones((), dtype=torch.float64)
        for p, d, v in zip(depth, truth, valid, strict=True)
    ]
    return (depth.double() * torch.stack(factors).view(-1, 1, 1, 1)).to(depth.dtype)


ALIGN = {"depth": align_depth, "disparity": align_disparity, "median": align_median}
FITTING: dict[DepthKind, str] = {  # what makes metres of a depth that is not in metres
    "relative": "median",
    "affine-depth": "depth",
    "affine-disparity": "disparity",
}


def to_metres(depth: Tensor, truth: Tensor, *, valid: Tensor, limits: tuple[float, float], kind: DepthKind) -> Tensor:
    """(B,1,H,W) depth of a kind, metres and bool -> (B,1,H,W) metres; those of "metric" stay as they are."""
    if kind == "metric":
        return depth
    fitted = ALIGN[FITTING[kind]](depth, truth, valid=valid, limits=limits)
    return fitted.clamp(*limits)


def _fit_affine(values: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """(B,1,H,W) float64 -> (B,1,H,W), scale * values + shift with the least squared error over the valid pixels.

    Values that are all the same become the mean of the truth; a frame without a valid pixel stays as it is.
    """
    count = valid.flatten(1).sum(dim=1)
    mean, target = _mean(values, valid, count), _mean(truth, valid, count)
    # Centred before the products: raw moments of depths far from 0 lose most of their digits.
    off, distance = values - mean, truth - target
    spread = _mean(off.square(), valid, count)
    scale = torch.where(spread > 0, _mean(off * distance, valid, count) / torch.where(spread > 0, spread, 1.0), 0.0)
    return torch.where(count.view(-1, 1, 1, 1) > 0, scale * off + target, values)


def _mean(values: Tensor, valid: Tensor, count: Tensor) -> Tensor:
    """(B,1,H,W) and (B,) pixels -> (B,1,1,1) mean over the valid ones; 0 of none."""
    total = torch.where(valid, values, 0.0).flatten(1).sum(dim=1)
    return (total / count.clamp(min=1)).view(-1, 1, 1, 1)


def _ratio(truth: Tensor, depth: Tensor) -> Tensor:
    """(n,) and (n,) metres -> () float64 ratio of their medians; 0 where the second is not above 0."""
    middle = _median(depth)
    return torch.where(middle > 0, _median(truth) / middle, 0.0)


def _median(values: Tensor) -> Tensor:
    """(n,) -> () float64."""
    ordered, middle = values.double().sort().values, len(values) // 2
    # NumPy's median, which monodepth2 scales by; torch.median is the lower of the two in the middle.
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


class ComparedDepth(NamedTuple):
    """Depth as a protocol compares it."""

    prediction: Tensor  # (B,1,H,W) float32 metres at the size of the truth
    truth: Tensor  # (B,1,H,W) metres
    valid: Tensor  # (B,1,H,W) bool, the pixels that are scored
