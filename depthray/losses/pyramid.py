"""The term that compares every scale of a depth pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from depthray.batch import constant
from depthray.errors import UsageError
from depthray.losses._masked import NEAREST, error, keep_valid, mean
from depthray.losses.loss_inputs import resize_area


def multiscale(
    depth: Tensor,
    truth: Tensor,
    *,
    valid: Tensor,
    pyramid: Sequence[Tensor],
    multiscale_weights: Sequence[float] = (1.0, 0.7, 0.5, 0.3, 0.2),  # those of seed 000's later code
    multiscale_norm: Literal["l1", "l2"] = "l1",
    multiscale_relative: bool = False,
) -> Tensor:
    """(B,1,H,W) depth and coarser levels (B,1,h,w) in metres -> (B,) weighted mean over scales of the mean error.

    Weights, finest first, count as shares of their sum. Relative errors are divided by the true depth of their pixel.
    """
    levels = (depth, *pyramid)
    _check(multiscale_weights, scales=len(levels))
    errors = []
    for level in levels:
        target, counted = downsample(truth, valid=valid, size=level.shape[-2:])
        off = error(level, target, valid=counted)
        if multiscale_relative:
            # The original divided by every true depth, and so by 0 where nothing was measured.
            off = off / torch.where(counted, target.clamp(min=NEAREST), 1.0)
        errors.append(mean(off.abs() if multiscale_norm == "l1" else off.square(), counted))
    weights = constant(tuple(multiscale_weights), device=depth.device, dtype=torch.float32)
    return (torch.stack(errors, dim=1) * (weights / weights.sum())).sum(dim=1)


def downsample(truth: Tensor, *, valid: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(B,1,H,W) metres -> (B,1,h,w) mean over each pixel's valid ones, and where there are any."""
    if tuple(truth.shape[-2:]) == tuple(size):
        return truth, valid
    share = resize_area(valid.float(), size)  # of valid pixels in each pixel of (h,w)
    # The mean over areas, as in the original: the nearest pixel would drop most of the truth at 1/32.
    summed = resize_area(keep_valid(truth, valid), size)
    counted = share > 0
    # The mean over valid pixels is the sum's share over the valid share; 1 avoids 0 / 0 and its gradient.
    return torch.where(counted, summed / torch.where(counted, share, 1.0), 0.0), counted


def _check(weights: Sequence[float], *, scales: int) -> None:
    if len(weights) != scales:
        raise UsageError(
            f"loss.multiscale_weights: {len(weights)} weights, but the network predicts {scales} scales "
            f"(depth and {scales - 1} coarser); give {scales}, finest first"
        )
    if not sum(weights) > 0:
        raise UsageError("loss.multiscale_weights: all are 0; give at least one above, or set loss.multiscale=0")
