"""Depth metrics as sums over pixels in float64, kept per image and per range of true depth.

A score is the mean over images of the image's metric, added up without rounding, so that it does not depend on the
order of the images or on which process saw them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from depthray.config.metric_names import HIGHER_IS_BETTER

if TYPE_CHECKING:  # recipes are checked by the names of metrics, without waiting for torch
    from torch import Tensor

METRICS = (
    *("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "mae", "irmse", "imae"),
    *("delta1", "delta2", "delta3"),
)
UNITS = {"sq_rel": "m", "rmse": "m", "mae": "m", "silog": "x100", "irmse": "1/km", "imae": "1/km"}
RANGES = ("all", "<1 m", "1-3 m", "3-5 m", ">5 m")  # of the true depth; a limit belongs to the range above it
LIMITS = (1.0, 3.0, 5.0)
SUMS = (
    *("count", "abs_rel", "sq_rel", "square", "log_square", "log10", "log", "mae", "inverse_square", "imae"),
    *("delta1", "delta2", "delta3"),
)

WORST = np.array([0.0 if name in HIGHER_IS_BETTER else math.inf for name in METRICS])

Rows = NDArray[np.float64]


def image_sums(prediction: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres and bool -> (B,R,K) float64 sums over the valid pixels, by range (RANGES) and kind (SUMS)."""
    terms = _terms(prediction, truth, valid=valid)
    import torch

    bounds = torch.tensor(LIMITS, dtype=truth.dtype, device=truth.device)
    span = torch.bucketize(truth, bounds, right=True).flatten(1)
    # Masked sums, not scatter or matmul: their result depends on neither atomics nor the number of threads.
    inside = [span == row for row in range(len(LIMITS) + 1)]
    rows = [torch.stack([_sum(term, each) for term in terms], dim=-1) for each in inside]
    sums = torch.stack(rows, dim=1)
    return torch.cat([sums.sum(dim=1, keepdim=True), sums], dim=1)


def image_scores(sums: Rows) -> Rows:
    """(...,K) sums -> (...,M) float64 metrics in the order of METRICS; NaN where no pixel was counted, and only there.

    A metric of counted pixels that is NaN becomes the worst value, so that no average leaves it out.
    """
    count = sums[..., :1]
    means = np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)
    mean = dict(zip(SUMS, np.moveaxis(means, -1, 0), strict=True))
    mean["rmse"] = np.sqrt(mean["square"])
    mean["rmse_log"] = np.sqrt(mean["log_square"])
    mean["irmse"] = np.sqrt(mean["inverse_square"])
    # Rounding can take the variance of nearly equal errors below 0.
    mean["silog"] = 100 * np.sqrt(np.maximum(mean["log_square"] - mean["log"] ** 2, 0))
    table = np.stack([mean[name] for name in METRICS], axis=-1)
    return np.where(np.isnan(table) & (count > 0), WORST, table)


def scores(sums: Rows | Tensor, range_index: int = 0, *, pooled: bool = False) -> dict[str, float]:
    """(N,R,K) sums -> mean over images by metric, in a range of RANGES; images without a pixel in it do not count.

    Pooled, the metric over the pixels of all images instead, where an image with more pixels weighs more.
    """
    chosen = np.asarray(sums, dtype=np.float64)[:, range_index]
    if pooled:
        chosen = np.array([[math.fsum(column) for column in chosen.T.tolist()]])
    return average(image_scores(chosen))


def average(table: Rows, names: Sequence[str] = METRICS) -> dict[str, float]:
    """(N,M) metrics of images -> mean by name over the images that have the metric, not NaN; NaN if none has."""
    return {name: _mean(column[~np.isnan(column)]) for name, column in zip(names, table.T, strict=True)}


def _mean(values: Rows) -> float:
    """(N,) -> their mean, added up without rounding; NaN of none."""
    return math.fsum(values.tolist()) / len(values) if len(values) else math.nan


def _sum(term: Tensor, inside: Tensor) -> Tensor:
    """(B,N) float64 or bool terms and (B,N) bool -> (B,) float64 sum of the terms inside."""
    if not term.is_floating_point():
        return (term & inside).sum(dim=1).double()
    return term.where(inside, 0.0).sum(dim=1)


def _terms(prediction: Tensor, truth: Tensor, *, valid: Tensor) -> list[Tensor]:
    """(B,1,H,W) metres -> one (B,H*W) tensor for each of SUMS, 0 where not valid; those that count are bool."""
    import torch

    valid = valid.flatten(1)
    # 1 m in both: every error is 0 there, and no logarithm or division fails.
    p = torch.where(valid, prediction.flatten(1).double(), 1.0)
    d = torch.where(valid, truth.flatten(1).double(), 1.0)
    error, log, inverse = p - d, p.log() - d.log(), 1000 * (1 / p - 1 / d)  # the last in 1/km
    size, square = error.abs(), error.square()
    # Infinity is in no delta, so pixels that are not valid are not counted.
    ratio = torch.where(valid, torch.maximum(d / p, p / d), math.inf)
    deltas = [ratio < 1.25**power for power in (1, 2, 3)]
    logs = [log.square(), log.abs() / math.log(10), log]
    return [valid, size / d, square / d, square, *logs, size, inverse.square(), inverse.abs(), *deltas]
