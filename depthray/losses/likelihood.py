"""Terms that train depth and how sure the network is of it together: how likely the truth is by what is predicted.

Errors are those of ln depth, in units of the standard deviation that the network predicts of them. Gaussian: Nix and
Weigend 1994, Kendall and Gal 2017 (arXiv:1703.04977, equation 5). Laplace, whose scale is its deviation / sqrt(2): Ilg
et al. 2018 (arXiv:1802.07095); its tails are those of depth at edges, so that such pixels weigh less.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from depthray.losses._masked import keep_valid, log_error, mean

LEAST = math.log(1e-4)  # of ln sigma in the divisor, by which an error of any depth is finite
FARTHEST = 30.0  # deviations, beyond which the square of an error continues as its tangent


def laplace_nll(
    depth: Tensor, truth: Tensor, *, valid: Tensor, log_sigma: Tensor, confidence: Tensor | None = None
) -> Tensor:
    """(B,1,H,W) metres, ln of the deviation of ln depth -> (B,) mean sqrt(2) |e| / s + ln(sqrt(2) s), e of ln depth."""
    log, size = keep_valid(log_sigma, valid), log_error(depth, truth, valid=valid).abs()
    value = math.sqrt(2) * size * torch.exp(-log.clamp(min=LEAST)) + log + math.log(2) / 2
    return mean(value, valid, confidence)


def gaussian_nll(
    depth: Tensor, truth: Tensor, *, valid: Tensor, log_sigma: Tensor, confidence: Tensor | None = None
) -> Tensor:
    """(B,1,H,W) metres, ln of the deviation of ln depth -> (B,) mean e^2 / 2 s^2 + ln(sqrt(2 pi) s), e of ln depth."""
    log, size = keep_valid(log_sigma, valid), log_error(depth, truth, valid=valid).abs()
    deviations = size * torch.exp(-log.clamp(min=LEAST))
    near = deviations.clamp(max=FARTHEST)
    return mean(near * (deviations - near / 2) + log + math.log(2 * math.pi) / 2, valid, confidence)
