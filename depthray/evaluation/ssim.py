"""Structural similarity of two maps, over one scale and over several (Wang et al. 2003, 2004).

Windows are 11x11 pixels under a Gaussian of sigma 1.5, all within the map. Values are divided by the data range, the
largest difference they can have: with 255 for values in [0,1], any two maps would be almost equal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from depthray.batch import constant
from depthray.errors import UsageError

SIDE, SIGMA = 11, 1.5
STABLE_MEAN, STABLE_SPREAD = 0.01**2, 0.03**2  # (K L)^2 of Wang et al. 2004, with values divided by L
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest first
FLATTEST = 1e-6  # below it the power of a scale continues as a straight line to 0


class WindowSimilarity(NamedTuple):
    """The similarity of each window (B,C,H-10,W-10)."""

    similarity: Tensor
    structure: Tensor  # without the comparison of means
    counted: Tensor  # bool


def ssim(a: Tensor, b: Tensor, *, data_range: float, valid: Tensor | None = None) -> Tensor:
    """(B,C,H,W) and (B,1,H,W) valid -> (B,) mean similarity of the windows without an invalid pixel, NaN if none."""
    windows = _windows(_normalize(a, valid, data_range), _normalize(b, valid, data_range), valid)
    return torch.where(windows.counted.flatten(1).any(dim=1), _mean(windows.similarity, windows.counted), torch.nan)


def ms_ssim(a: Tensor, b: Tensor, *, data_range: float, valid: Tensor | None = None) -> Tensor:
    """(B,C,H,W) and (B,1,H,W) valid -> (B,) similarity over as many of the 5 scales as have a window, NaN if none has.

    Five scales need sides of 176 pixels and more; for smaller maps the weights of the scales there are, are divided by
    their sum. Between scales, 2x2 pixels become their mean, valid if all are.
    """
    a, b = _normalize(a, valid, data_range), _normalize(b, valid, data_range)
    scales = [_windows(a, b, valid)]
    while len(scales) < len(SCALE_WEIGHTS) and min(a.shape[-2:]) // 2 >= SIDE:
        a, b = functional.avg_pool2d(a, 2), functional.avg_pool2d(b, 2)
        valid = None if valid is None else _all_valid(valid, side=2, stride=2)
        scales.append(_windows(a, b, valid))
    return _product(scales)


def has_window(valid: Tensor) -> Tensor:
    """(B,1,H,W) -> (B,) whether there is a window without an invalid pixel."""
    return _valid_windows(valid).flatten(1).any(dim=1)


def _product(scales: list[WindowSimilarity]) -> Tensor:
    """Windows by scale, finest first -> (B,) structure to the power of its weight, times the coarsest's similarity."""
    there = torch.stack([scale.counted.flatten(1).any(dim=1) for scale in scales])  # (scales,B), as all that follows
    last = there & ~torch.cat([there[1:], torch.zeros_like(there[:1])])
    structure, similarity = (
        torch.stack([_mean(values, scale.counted) for values, scale in zip(by_scale, scales, strict=True)])
        for by_scale in ([scale.structure for scale in scales], [scale.similarity for scale in scales])
    )
    value = torch.where(last, similarity, structure)
    shares = constant(SCALE_WEIGHTS[: len(scales)], device=value.device, dtype=value.dtype)
    weights = torch.where(there, shares.view(-1, 1), 0.0)
    # A negative structure has no such power; where no scale is there, the clamp avoids 0 / 0.
    powers = _power(value.relu(), weights / weights.sum(dim=0).clamp(min=min(SCALE_WEIGHTS)))
    return torch.where(there[0], torch.where(there, powers, 1.0).prod(dim=0), torch.nan)


def _power(value: Tensor, exponent: Tensor) -> Tensor:
    """value >= 0 -> value^exponent, whose slope at 0 is finite."""
    steep = value > FLATTEST
    return torch.where(steep, torch.where(steep, value, 1.0) ** exponent, value * FLATTEST ** (exponent - 1))


def _normalize(values: Tensor, valid: Tensor | None, data_range: float) -> Tensor:
    """Values -> shares of the data range in float32 or float64, 0 where not valid."""
    shares = (values if values.dtype == torch.float64 else values.float()) / data_range
    return shares if valid is None else torch.where(valid, shares, 0.0)


def _windows(a: Tensor, b: Tensor, valid: Tensor | None) -> WindowSimilarity:
    """(B,C,H,W) shares of the data range -> each window's similarity."""
    _check_size(a.shape)
    mean_a, mean_b, square_a, square_b, product = _blur(torch.stack([a, b, a * a, b * b, a * b]))
    # Rounding can take a variance below 0, and a denominator with it.
    spread = (square_a - mean_a * mean_a).clamp(min=0) + (square_b - mean_b * mean_b).clamp(min=0)
    structure = (2 * (product - mean_a * mean_b) + STABLE_SPREAD) / (spread + STABLE_SPREAD)
    means = (2 * mean_a * mean_b + STABLE_MEAN) / (mean_a * mean_a + mean_b * mean_b + STABLE_MEAN)
    everywhere = torch.ones_like(means[:, :1], dtype=torch.bool)
    counted = everywhere if valid is None else _valid_windows(valid)
    return WindowSimilarity(means * structure, structure, counted.expand_as(means))


def _blur(values: Tensor) -> Tensor:
    """(...,H,W) -> (...,H-10,W-10) Gaussian means, at the precision of the values even under autocast."""
    kernel = constant(_gaussian(), device=values.device, dtype=values.dtype).view(1, 1, 1, SIDE)
    flat = values.reshape(-1, 1, *values.shape[-2:])  # (N,1,H,W)
    # Rows, then columns: the Gaussian is separable, so that 22 products a pixel replace 121.
    with torch.autocast(values.device.type, enabled=False):
        blurred = functional.conv2d(functional.conv2d(flat, kernel), kernel.mT)
    return blurred.view(*values.shape[:-2], *blurred.shape[-2:])


def _gaussian() -> tuple[float, ...]:
    """The SIDE weights of a row of a window."""
    taps = [math.exp(-((place - SIDE // 2) ** 2) / (2 * SIGMA**2)) for place in range(SIDE)]
    return tuple(tap / sum(taps) for tap in taps)


def _valid_windows(valid: Tensor) -> Tensor:
    """(B,1,H,W) -> (B,1,H-10,W-10) windows without an invalid pixel."""
    _check_size(valid.shape)
    return _all_valid(valid, side=SIDE, stride=1)


def _all_valid(valid: Tensor, *, side: int, stride: int) -> Tensor:
    return functional.max_pool2d((~valid).float(), side, stride) == 0


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """(B,C,h,w) -> (B,) mean over the counted windows, 0 if there are none."""
    total = torch.where(counted, values, 0.0).sum(dim=(1, 2, 3))
    return total / counted.sum(dim=(1, 2, 3)).clamp(min=1)


def _check_size(shape: torch.Size) -> None:
    if min(shape[-2:]) < SIDE:
        raise UsageError(
            f"SSIM compares windows of {SIDE}x{SIDE} pixels, and the maps have {shape[-2]}x{shape[-1]}; "
            "use a larger data.size, or leave the term out"
        )
