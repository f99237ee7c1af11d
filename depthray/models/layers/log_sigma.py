"""How sure a network is of its depth: the standard deviation of ln depth, predicted beside it.

Of ln depth, for errors grow with depth, so that a share of it is what features can tell; a correction of the scale of
depth, or another unit, leaves it as it is. It is predicted as its logarithm, as Kendall and Gal 2017 (arXiv:1703.04977)
do, so that it is positive and no loss divides by it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from depthray.models.layers.blocks import upsample

WIDTH = 24  # channels before the logarithm
REACH = 4  # pixels of the features between those that the second convolution sees: what is near an edge is less sure
GAIN = 8.0  # of the last layer, which begins at 0: fine-tuning a network whose depth is trained has few steps for it
START = 0.15  # standard deviation of ln depth before training, about that of a network that is half trained
LEAST, MOST = 1e-3, 2.0  # what it stays between: a millimetre of a metre, and not known at all
UNIT = 1e-2  # of the mean square of features: those of less are not scaled up to unit size


class LogSigma(nn.Module):
    """Three convolutions on the features before depth's last layer and on depth; they begin at START everywhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(WIDTH, 1, 1)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, _inverse(START) / GAIN)  # type: ignore[arg-type]
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels + 1, WIDTH, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(WIDTH, WIDTH, 3, padding=REACH, dilation=REACH), nn.ReLU(inplace=True)),
            last,
        )

    def forward(self, features: Tensor, shares: Tensor, size: tuple[int, int]) -> Tensor:
        """(B,C,h,w) features, (B,1,h,w) depth as a share of max_depth -> (B,1,H,W) ln of the deviation of ln depth"""
        # Of unit size in each pixel: features of networks without a norm before their last layer may be thousands.
        features = features.float()
        features = features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + UNIT)
        # In logarithms, of which differences are those that errors are measured in.
        depth = shares.detach().float().clamp(min=LEAST).log()
        values = self.layers(torch.cat([features, depth], dim=1)).float()
        values = GAIN * upsample(values, size, corners=False)  # (B,1,h,w) -> (B,1,H,W)
        # A bound without corners: what reached an end would have no gradient that leads back.
        return _MIDDLE + _REACH * torch.tanh(values / _REACH)


_MIDDLE, _REACH = (math.log(MOST) + math.log(LEAST)) / 2, (math.log(MOST) - math.log(LEAST)) / 2


def _inverse(sigma: float) -> float:
    """What becomes the logarithm of this."""
    return _REACH * math.atanh((math.log(sigma) - _MIDDLE) / _REACH)
