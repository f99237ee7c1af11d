"""What the deviation of ln depth means for a pixel: metres, an interval, a confidence. The same for all that predicts.

With m = ln depth and s its deviation, ln of the true depth is Laplace (scale s / sqrt(2)) or Gaussian around m:

    sigma       s * depth, in metres: the deviation of depth itself where s is small
    confidence  the probability that depth is right within 10 %, max(depth / true, true / depth) < 1.1:
                1 - exp(-sqrt(2) ln(1.1) / s) of Laplace, erf(ln(1.1) / (sqrt(2) s)) of Gauss
    interval    of a share p of all pixels: depth * exp(-z s) to depth * exp(z s), z = -ln(1 - p) / sqrt(2) of Laplace,
                sqrt(2) erfinv(p) of Gauss
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from depthray.config.sections import Uncertainty

WITHIN = math.log(1.1)  # of ln depth: about 10 percent


def confidence(log_sigma: Tensor, family: Uncertainty) -> Tensor:
    """(...) ln of the deviation of ln depth -> (...) probability in [0,1] that depth is right within 10 percent"""
    deviations = WITHIN * torch.exp(-log_sigma.float())
    return probability(deviations, family)


def probability(deviations: Tensor, family: Uncertainty) -> Tensor:
    """(...) z -> (...) share of a distribution that is within z of its deviations around its middle"""
    if family == "laplace":
        return -torch.expm1(-math.sqrt(2) * deviations)
    return torch.erf(deviations / math.sqrt(2))


def interval(share: float, family: Uncertainty) -> float:
    """How many deviations to either side hold this share of a distribution, which is in [0,1)."""
    if family == "laplace":
        return -math.log1p(-share) / math.sqrt(2)
    return math.sqrt(2) * float(torch.erfinv(torch.tensor(share, dtype=torch.float64)))


def confidence_maps(depth: Tensor, log_sigma: Tensor, family: Uncertainty) -> dict[str, Tensor]:
    """(B,1,h,w) metres and ln of the deviation of ln depth -> `sigma` in metres and `confidence` in [0,1], (B,1,h,w)"""
    return {"sigma": depth * torch.exp(log_sigma.float()), "confidence": confidence(log_sigma, family)}


def nll(error: Tensor, log_sigma: Tensor, family: Uncertainty) -> Tensor:
    """(...) errors of ln depth and ln of their deviation -> (...) negative log likelihood"""
    deviations = error.abs() * torch.exp(-log_sigma)
    if family == "laplace":
        return math.sqrt(2) * deviations + log_sigma + math.log(2) / 2
    return deviations.square() / 2 + log_sigma + math.log(2 * math.pi) / 2
