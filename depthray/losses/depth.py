"""Terms that compare depth pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from depthray.losses._masked import error, keep_valid, ln, log_error, mean, root

LEAST_SHARE = 1e-4  # below it, as above 1 minus it, the cross-entropy of a share continues as its tangent


def l1(depth: Tensor, truth: Tensor, *, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean absolute error in metres."""
    return mean(error(depth, truth, valid=valid).abs(), valid, confidence)


def l2(depth: Tensor, truth: Tensor, *, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean squared error in square metres."""
    return mean(error(depth, truth, valid=valid).square(), valid, confidence)


def rmse(depth: Tensor, truth: Tensor, *, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) metres -> (B,) root of the image's mean squared error, in metres."""
    return root(l2(depth, truth, valid=valid, confidence=confidence))


def abs_rel(depth: Tensor, truth: Tensor, *, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean absolute error as a share of the true depth."""
    return mean(error(depth, truth, valid=valid).abs() / keep_valid(truth, valid, other=1.0), valid, confidence)


def log_l1(depth: Tensor, truth: Tensor, *, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean absolute error of ln depth."""
    return mean(log_error(depth, truth, valid=valid).abs(), valid, confidence)


def monocular(monocular: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres predicted without samples -> (B,) mean absolute error of their logarithm."""
    return log_l1(monocular, truth, valid=valid)


def log_rmse(depth: Tensor, truth: Tensor, *, valid: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) metres -> (B,) root of the image's mean squared error of ln depth."""
    return root(mean(log_error(depth, truth, valid=valid).square(), valid, confidence))


def berhu(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) reverse Huber in metres: |e| up to c = 0.2 max|e|, else (e^2 + c^2) / 2c.

    The maximum is the image's, not the batch's as first published, and no gradient flows through it.
    """
    size = error(depth, truth, valid=valid).abs()
    threshold = 0.2 * size.detach().amax(dim=(1, 2, 3), keepdim=True)  # the fifth is of Laina et al. 2016
    divisor = 2 * threshold.clamp(min=torch.finfo(torch.float32).tiny)  # a perfect image has threshold 0
    far = torch.where(size > threshold, (size.square() + threshold.square()) / divisor, size)
    return mean(far, valid)


def silog(
    depth: Tensor,
    truth: Tensor,
    *,
    valid: Tensor,
    silog_lambda: float = 0.85,
    silog_unbiased: bool = False,
    confidence: Tensor | None = None,
) -> Tensor:
    """(B,1,H,W) metres -> (B,) sqrt(mean g^2 - lambda (mean g)^2) with g the error of ln depth.

    As BTS has it with lambda 0.85, as AdaBins with the unbiased variance (over n - 1 pixels) besides, as Depth Anything
    V2 with lambda 0.5. The factor 10 of the first two is left to the term's weight.
    """
    log = log_error(depth, truth, valid=valid)
    bias = mean(log, valid, confidence)
    # Never below 0, unlike the difference of means.
    variance = mean((log - bias.view(-1, 1, 1, 1)).square(), valid, confidence)
    if silog_unbiased:
        count = valid.sum(dim=(1, 2, 3))
        variance = variance * count / (count - 1).clamp(min=1)  # Bessel's correction, as torch.var has it
    # The docstring's form, for mean g^2 = variance + (mean g)^2.
    return root(variance + (1 - silog_lambda) * bias.square())


def depth_bce(depth: Tensor, truth: Tensor, *, valid: Tensor, depth_range: float = 10.0) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean binary cross-entropy of the share depth / depth_range, in nats.

    Its least value is the entropy of the true shares, not 0. Truth beyond the range counts as 1.
    """
    # One half where not valid: there both logarithms are finite, and so are their gradients.
    share = keep_valid(depth, valid, other=depth_range / 2) / depth_range
    target = (keep_valid(truth, valid) / depth_range).clamp(0, 1)
    # A share beyond 0 or 1 is not clamped: the tangents still have a gradient that leads back.
    near, far = (ln(side, least=LEAST_SHARE) for side in (share, 1 - share))
    return mean(-target * near - (1 - target) * far, valid)


def depth_dice(depth: Tensor, truth: Tensor, *, valid: Tensor, depth_range: float = 10.0) -> Tensor:
    """(B,1,H,W) metres -> (B,) 1 - (2 sum py + 1) / (sum p + sum y + 1) of the shares p, y = depth / depth_range.

    Shares end at 0 and 1. They are no probabilities, so a perfect prediction does not cost 0 and is not the cheapest:
    the term is meant to be combined with others.
    """
    return dice(*((keep_valid(side, valid) / depth_range).clamp(0, 1) for side in (depth, truth)))


def dice(share: Tensor, target: Tensor) -> Tensor:
    """(B,1,H,W) shares in [0,1] -> (B,) Dice loss of each image, smoothed by 1 above and below."""
    both, either = (each.sum(dim=(1, 2, 3)) for each in (share * target, share + target))
    # The 1s make the loss of two empty masks 0 instead of 0 / 0.
    return 1 - (2 * both + 1) / (either + 1)
