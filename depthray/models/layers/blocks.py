"""Layers that several architectures share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def upsample(features: Tensor, size: tuple[int, int], *, corners: bool = True) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W) bilinear; `corners` is torch's align_corners."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=corners)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 8 channels a group: the same for any batch size, unlike batch norm."""
    return nn.GroupNorm(channels // 8, channels)
