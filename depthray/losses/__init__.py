"""Loss terms, one function each; a recipe names and weighs them.

A term is the mean over each image's valid pixels, so that the average over images does not depend on how a batch is
dealt over processes or micro-batches. It is 0, with gradient 0, for an image without valid pixels, and is computed in
float32 whatever the prediction's dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from depthray.batch import Batch, Prediction
from depthray.sections import Loss

NEAREST = 1e-3  # metres; below it the logarithm goes on as its tangent
FLATTEST = 1e-6  # below it the square root goes on as a straight line to 0


def total(prediction: Prediction, batch: Batch, section: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """(B,1,H,W) depth, truth in metres and valid -> (B,) weighted sum, and (B,) unweighted by term."""
    depth, truth, valid = prediction["depth"], batch["depth"], batch["valid"]
    terms = {}
    for name in section.terms:
        options = {key: value for key, value in section if key.startswith(f"{name}_")}
        terms[name] = TERMS[name](depth, truth, valid=valid, **options)
    weighted = torch.stack([weight * terms[name] for name, weight in section.terms.items()])
    return weighted.sum(dim=0), terms


def l1(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean absolute error in metres."""
    return _mean(_error(depth, truth, valid=valid).abs(), valid)


def l2(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean squared error in square metres."""
    return _mean(_error(depth, truth, valid=valid).square(), valid)


def berhu(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) reverse Huber in metres: |e| up to c = 0.2 max|e|, else (e^2 + c^2) / 2c.

    The maximum is the image's, not the batch's as first published, and no gradient flows through it.
    """
    error = _error(depth, truth, valid=valid).abs()
    threshold = 0.2 * error.detach().amax(dim=(1, 2, 3), keepdim=True)
    divisor = 2 * threshold.clamp(min=torch.finfo(torch.float32).tiny)
    far = torch.where(error > threshold, (error.square() + threshold.square()) / divisor, error)
    return _mean(far, valid)


def silog(depth: Tensor, truth: Tensor, *, valid: Tensor, silog_lambda: float = 0.85) -> Tensor:
    """(B,1,H,W) metres -> (B,) sqrt(mean g^2 - lambda (mean g)^2) with g the error of ln depth.

    Without the factor 10 it is often given: that is the weight's business.
    """
    error = _log_error(depth, truth, valid=valid)
    mean = _mean(error, valid)
    variance = _mean((error - mean.view(-1, 1, 1, 1)).square(), valid)  # never below 0, unlike the difference of means
    return _sqrt(variance + (1 - silog_lambda) * mean.square())


def log_l1(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean absolute error of ln depth."""
    return _mean(_log_error(depth, truth, valid=valid).abs(), valid)


def gradient(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean |error of forward differences| in metres a pixel, along x plus along y.

    A difference counts where both of its pixels are valid.
    """
    error = _error(depth, truth, valid=valid)
    across = _mean(error.diff(dim=3).abs(), valid[..., 1:] & valid[..., :-1])
    down = _mean(error.diff(dim=2).abs(), valid[..., 1:, :] & valid[..., :-1, :])
    return across + down


Term = Callable[..., Tensor]
TERMS: dict[str, Term] = {term.__name__: term for term in (l1, l2, berhu, silog, log_l1, gradient)}


def _error(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,1,H,W) float32 error in metres, 0 where not valid."""
    # Masked before the arithmetic: a NaN at an invalid pixel would come back through the gradient of a product with 0.
    return torch.where(valid, depth.float(), 0.0) - torch.where(valid, truth.float(), 0.0)


def _log_error(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,1,H,W) float32 error of ln depth, 0 where not valid."""
    return _ln(torch.where(valid, depth.float(), 1.0)) - _ln(torch.where(valid, truth.float(), 1.0))


def _ln(depth: Tensor) -> Tensor:
    """Metres -> ln metres; below NEAREST its tangent, so that a prediction of 0 is finite and still has a way back."""
    near = depth.clamp(min=NEAREST)
    return near.log() + (depth - near) / NEAREST


def _sqrt(value: Tensor) -> Tensor:
    """Square root whose slope at 0 is finite: a line below FLATTEST."""
    steep = value > FLATTEST
    return torch.where(steep, torch.where(steep, value, 1.0).sqrt(), value * FLATTEST**-0.5)


def _mean(value: Tensor, counted: Tensor) -> Tensor:
    """(B,1,H,W) -> (B,) mean over the counted pixels of each image, 0 if there are none."""
    kept = torch.where(counted, value, 0.0)
    return kept.sum(dim=(1, 2, 3)) / counted.sum(dim=(1, 2, 3)).clamp(min=1)
