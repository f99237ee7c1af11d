"""Arithmetic over the valid pixels of an image that several terms share."""

from __future__ import annotations

import torch
from torch import Tensor

NEAREST = 1e-3  # metres; below it the logarithm continues as its tangent
FLATTEST = 1e-6  # below it a root continues as a straight line to 0


def error(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,1,H,W) float32 error in metres, 0 where not valid."""
    # Masked before the arithmetic: a NaN at an invalid pixel would come back through the gradient of a product with 0.
    return keep_valid(depth, valid) - keep_valid(truth, valid)


def log_error(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,1,H,W) float32 error of ln depth, 0 where not valid."""
    return ln(keep_valid(depth, valid, other=1.0)) - ln(keep_valid(truth, valid, other=1.0))


def keep_valid(values: Tensor, valid: Tensor, *, other: float = 0.0) -> Tensor:
    """(B,1,H,W) any unit -> the same in float32, `other` where not valid."""
    return torch.where(valid, values.float(), other)


def ln(value: Tensor, *, least: float = NEAREST) -> Tensor:
    """(B,1,H,W) -> its logarithm, below `least` its tangent: a prediction of 0 is finite and still has a gradient."""
    near = value.clamp(min=least)
    return near.log() + (value - near) / least


def root(value: Tensor, power: float = 0.5) -> Tensor:
    """(B,) value >= 0 -> (B,) value^power, whose slope at 0 is finite: a line below FLATTEST."""
    steep = value > FLATTEST
    # The inner `where` keeps the infinite slope at 0 out of the gradient, which the outer one would multiply by 0.
    return torch.where(steep, torch.where(steep, value, 1.0) ** power, value * FLATTEST ** (power - 1))


def mean(value: Tensor, counted: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) -> (B,) mean over the counted pixels of each image, 0 if there are none; weighted by a confidence."""
    weighted = value if confidence is None else value * confidence
    return total(weighted, counted) / amount(counted, confidence)


def amount(counted: Tensor, confidence: Tensor | None = None) -> Tensor:
    """(B,1,H,W) -> (B,) number of counted pixels, or the sum of their confidence; 1 where there are none."""
    if confidence is None:
        return counted.sum(dim=(1, 2, 3)).clamp(min=1)
    summed = total(confidence, counted)
    return torch.where(summed > 0, summed, 1.0)


def total(value: Tensor, counted: Tensor) -> Tensor:
    """(B,1,H,W) -> (B,) sum over the counted pixels of each image."""
    return torch.where(counted, value, 0.0).sum(dim=(1, 2, 3))
