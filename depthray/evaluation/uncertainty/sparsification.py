"""What a frame says of the confidence that a network predicts of it.

Sparsification (Ilg et al. 2018; as Poggi et al. 2020, arXiv:2005.06209, section 4.1, have it): the error of the pixels
that are left while the least certain are removed, in 50 steps. The oracle removes those of the largest error first. The
area between the two is AUSE, that between the error of all pixels and the first is AURG; smaller and larger are better.
RMSE is sparsified by sigma in metres, AbsRel by sigma as a share of depth, which is the order of confidence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from depthray.config.sections import Uncertainty
from depthray.evaluation.alignment import ComparedDepth
from depthray.evaluation.metrics import LIMITS
from depthray.models.layers import confidence

PIXELS = 50_000  # of a frame, a regular part of those that are scored: more would change the third digit
STEPS = 50
LEVELS = 100  # steps of the share that an interval holds, and of confidence
LEAST = 50  # pixels, below which a curve says nothing
CURVES = ("rmse", "rmse_oracle", "rmse_by_depth", "abs_rel", "abs_rel_oracle")  # by depth: as a constant share of it
BINS = ("count", "right")  # of pixels by confidence: how many, and how many of them right within 10 percent
SIGMAS = np.geomspace(1e-3, 100, 301)  # metres: ends of the steps in which pixels of all frames are put in order
REMOVED = np.arange(STEPS) / STEPS  # shares of pixels

Values = NDArray[np.float64]


class FrameConfidence(NamedTuple):
    """Sums and curves of one frame; R are all depths and the ranges of `metrics.RANGES`."""

    likelihood: Values  # (R,) mean negative log likelihood of ln depth; NaN without a pixel
    levels: Values  # (R,LEVELS) pixels by the least share whose interval holds the truth, in steps of a hundredth
    bins: Values  # (LEVELS,BINS) by confidence, in steps of a hundredth
    widths: Values  # (SIGMAS - 1,2) by sigma: pixels and their squared errors
    curves: Values  # (CURVES,R,STEPS) in metres or, of AbsRel, shares; NaN for fewer than LEAST pixels


def of_frames(depth: ComparedDepth, log_sigma: Tensor, family: Uncertainty) -> list[FrameConfidence]:
    """Compared depth (B,1,H,W) and ln of the deviation of ln depth (B,1,h,w) -> what each frame says of it."""
    logs = at_size_of(depth.truth, log_sigma)
    frames = []
    for maps in zip(*(each[:, 0].cpu() for each in (*depth, logs)), strict=True):
        prediction, truth, valid, log = maps
        chosen = torch.nonzero(valid.flatten())[:, 0]
        chosen = chosen[:: max(1, -(-len(chosen) // PIXELS))]
        pixels = [each.flatten()[chosen].double() for each in (prediction, truth, log)]
        frames.append(_of_pixels(pixels[0], pixels[1], pixels[2], family))
    return frames


def at_size_of(truth: Tensor, log_sigma: Tensor) -> Tensor:
    """(B,1,H,W) and (B,1,h,w) -> (B,1,H,W) ln of the deviation of ln depth, bilinear; 0 where it is no number"""
    logs = torch.nan_to_num(log_sigma.float(), nan=0.0)  # a network that has failed is not sure of it
    if logs.shape[-2:] == truth.shape[-2:]:
        return logs
    return functional.interpolate(logs, size=truth.shape[-2:], mode="bilinear", align_corners=False)


def _of_pixels(prediction: Tensor, truth: Tensor, log: Tensor, family: Uncertainty) -> FrameConfidence:
    """(n,) metres, metres and ln of the deviation of ln depth, float64 -> what they say"""
    off, sigma = (prediction.log() - truth.log()).abs(), log.exp()
    shares = confidence.probability(off / sigma, family).numpy()
    sure = confidence.confidence(log, family).double().numpy()
    right = (off < confidence.WITHIN).numpy()
    square, relative = (prediction - truth).square().numpy(), ((prediction - truth).abs() / truth).numpy()
    losses = confidence.nll(off, log, family).numpy()
    spans = np.searchsorted(np.array(LIMITS), truth.numpy(), side="right")
    inside = [np.ones(len(off), bool), *(spans == span for span in range(len(LIMITS) + 1))]
    orders = _orders(prediction.numpy(), sigma.numpy(), square, relative)
    errors = (square, square, square, relative, relative)
    curves = np.stack([_curves(*pair, inside) for pair in zip(errors, orders, strict=True)])
    curves[:3] = np.sqrt(curves[:3])
    return FrameConfidence(
        np.array([losses[each].mean() if each.any() else np.nan for each in inside]),
        np.stack([np.bincount(_step(shares[each]), minlength=LEVELS) for each in inside]).astype(np.float64),
        np.stack([np.bincount(_step(sure), values, LEVELS) for values in (np.ones(len(off)), right)], axis=1),
        _by_sigma((sigma * prediction).numpy(), square),
        curves,
    )


def _orders(depth: Values, sigma: Values, square: Values, relative: Values) -> list[NDArray[np.int64]]:
    """(n,) of the pixels -> their places from the most certain to the least, by curve of CURVES"""
    by = (sigma * depth, square, depth, sigma, relative)
    return [np.argsort(each, kind="stable") for each in by]


def _curves(errors: Values, order: NDArray[np.int64], inside: list[NDArray[np.bool_]]) -> Values:
    """(n,) errors, from the most certain on by order -> (R,STEPS) mean of those left while the least certain go"""
    rows = np.full((len(inside), STEPS), np.nan)
    for row, mask in zip(rows, inside, strict=True):
        kept = errors[order[mask[order]]]
        if len(kept) >= LEAST:
            counts = np.ceil((1 - REMOVED) * len(kept)).astype(int)
            row[:] = np.cumsum(kept)[counts - 1] / counts
    return rows


def _by_sigma(sigma: Values, square: Values) -> Values:
    """(n,) metres and squared errors -> (SIGMAS - 1,2) pixels and sums of squared errors by sigma"""
    steps = np.clip(np.searchsorted(SIGMAS, sigma, side="right") - 1, 0, len(SIGMAS) - 2)
    return np.stack([np.bincount(steps, values, len(SIGMAS) - 1) for values in (np.ones(len(sigma)), square)], axis=1)


def _step(shares: Values) -> NDArray[np.int64]:
    """(n,) in [0,1] -> (n,) the hundredth that each is in"""
    return np.clip((shares * LEVELS).astype(np.int64), 0, LEVELS - 1)
