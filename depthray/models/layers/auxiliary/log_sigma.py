"""How sure a network is of its depth: the standard deviation of ln depth, predicted along with it.

Of ln depth, for errors grow with depth, so that a share of it is what features can tell; a correction of the scale of
depth, or another unit, leaves it as it is. It is predicted as its logarithm, as Kendall and Gal 2017 (arXiv:1703.04977)
do, so that it is positive and no loss divides by it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from depthray.models.layers.auxiliary.auxiliary_head import AuxiliaryHead

START = 0.15  # standard deviation of ln depth before training, about that of a network that is half trained
LEAST, MOST = 1e-3, 2.0  # what it stays between: a millimetre of a metre, and not known at all


class LogSigma(AuxiliaryHead):
    """The logarithm of the deviation of ln depth, START before training."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, start=_inverse(START))

    def forward(self, features: Tensor, shares: Tensor, size: tuple[int, int]) -> Tensor:
        """(B,C,h,w) features, (B,1,h,w) depth as a share of max_depth -> (B,1,H,W) ln of the deviation of ln depth"""
        values = super().forward(features, shares, size)
        # A bound without corners: what reached an end would have no gradient that leads back.
        return _MIDDLE + _REACH * torch.tanh(values / _REACH)


_MIDDLE, _REACH = (math.log(MOST) + math.log(LEAST)) / 2, (math.log(MOST) - math.log(LEAST)) / 2


def _inverse(sigma: float) -> float:
    """What becomes the logarithm of this."""
    return _REACH * math.atanh((math.log(sigma) - _MIDDLE) / _REACH)
