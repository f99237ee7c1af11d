"""Depth metrics as sums over pixels in float64, kept per image and per range of true depth.

A score is the mean over images of the image's metric, added up without rounding, so that it does not depend on the
order of the images or on which process saw them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "mae", "delta1", "delta2", "delta3")
UNITS = {"sq_rel": "m", "rmse": "m", "mae": "m", "silog": "x100"}
RANGES = ("all", "<1 m", "1-3 m", "3-5 m", ">5 m")  # of the true depth; a limit belongs to the range above it
HIGHER = ("delta1", "delta2", "delta3", "ssim", "iou", "dice", "boundary_f1")  # better when higher; others when lower
LIMITS = (1.0, 3.0, 5.0)
SUMS = ("count", "abs_rel", "sq_rel", "square", "log_square", "log10", "log", "mae", "delta1", "delta2", "delta3")

Rows = NDArray[np.float64]


def badness(name: str, value: float) -> float:
    """A metric's value as a number that is lower when better; NaN stays NaN."""
    return -value if name in HIGHER else value


def image_sums(prediction: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres and bool -> (B,R,K) float64 sums over the valid pixels, by range (RANGES) and kind (SUMS)."""
    terms = _terms(prediction, truth, valid=valid)
    bounds = torch.tensor(LIMITS, dtype=truth.dtype, device=truth.device)
    span = torch.bucketize(truth, bounds, right=True).flatten(1)
    # Masked sums, not scatter or matmul: their result depends on neither atomics nor the number of threads.
    rows = [
        torch.stack([torch.where(span == row, term, 0.0).sum(dim=1) for term in terms], dim=-1)
        for row in range(len(LIMITS) + 1)
    ]
    sums = torch.stack(rows, dim=1)
    return torch.cat([sums.sum(dim=1, keepdim=True), sums], dim=1)


def image_scores(sums: Rows) -> Rows:
    """(...,K) sums -> (...,M) float64 metrics in the order of METRICS; NaN where no pixel was counted."""
    count = sums[..., :1]
    means = np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)
    mean = dict(zip(SUMS, np.moveaxis(means, -1, 0), strict=True))
    mean["rmse"] = np.sqrt(mean["square"])
    mean["rmse_log"] = np.sqrt(mean["log_square"])
    mean["silog"] = 100 * np.sqrt(np.maximum(mean["log_square"] - mean["log"] ** 2, 0))
    return np.stack([mean[name] for name in METRICS], axis=-1)


def scores(sums: Rows | Tensor, range_index: int = 0) -> dict[str, float]:
    """(N,R,K) sums -> mean over images by metric, in a range of RANGES; images without a pixel in it do not count."""
    table = image_scores(np.asarray(sums, dtype=np.float64)[:, range_index])
    return average(table)


def average(table: Rows) -> dict[str, float]:
    """(N,M) metrics of images -> mean by metric over the images that have one; NaN if none has."""
    kept = table[~np.isnan(table[:, 0])]
    if not len(kept):
        return dict.fromkeys(METRICS, math.nan)
    return {name: math.fsum(column) / len(kept) for name, column in zip(METRICS, kept.T.tolist(), strict=True)}


def _terms(prediction: Tensor, truth: Tensor, *, valid: Tensor) -> list[Tensor]:
    """(B,1,H,W) metres -> one (B,H*W) float64 tensor for each of SUMS, 0 where not valid."""
    valid = valid.flatten(1)
    p = torch.where(valid, prediction.flatten(1).double(), 1.0)
    d = torch.where(valid, truth.flatten(1).double(), 1.0)
    error, log = p - d, p.log() - d.log()
    size, square = error.abs(), error.square()
    ratio = torch.where(valid, torch.maximum(d / p, p / d), math.inf)
    deltas = [(ratio < 1.25**power).double() for power in (1, 2, 3)]
    return [valid.double(), size / d, square / d, square, log.square(), log.abs() / math.log(10), log, size, *deltas]
