"""A map that is predicted along with depth, by layers of its own: those of depth stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from depthray.models.layers.blocks import upsample

WIDTH = 24  # channels before the last layer
REACH = 4  # pixels of the features between those that the second convolution sees: what is near an edge is another case
GAIN = 8.0  # of the last layer, which begins at 0: fine-tuning a network whose depth is trained has few steps for it
NEAREST = 1e-3  # shares of max_depth that count as this: a logarithm follows
UNIT = 1e-2  # of the mean square of features: those of less are not scaled up to unit size


class AuxiliaryHead(nn.Module):
    """Three convolutions on the features before depth's last layer and on depth; they begin at `start` everywhere."""

    def __init__(self, channels: int, *, start: float) -> None:
        super().__init__()
        last = nn.Conv2d(WIDTH, 1, 1)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, start / GAIN)  # type: ignore[arg-type]
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels + 1, WIDTH, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(WIDTH, WIDTH, 3, padding=REACH, dilation=REACH), nn.ReLU(inplace=True)),
            last,
        )

    def forward(self, features: Tensor, shares: Tensor, size: tuple[int, int]) -> Tensor:
        """(B,C,h,w) features, (B,1,h,w) depth as a share of max_depth -> (B,1,H,W) float32"""
        # Of unit size in each pixel: features of networks without a norm before their last layer may be thousands.
        features = features.float()
        features = features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + UNIT)
        # In logarithms, of which differences are those that errors are measured in.
        depth = shares.detach().float().clamp(min=NEAREST).log()
        values = self.layers(torch.cat([features, depth], dim=1)).float()
        return GAIN * upsample(values, size, corners=False)  # (B,1,h,w) -> (B,1,H,W)
