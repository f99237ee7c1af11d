"""Layers that several architectures share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def enlarge(features: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W) bilinear, corner pixels on corner pixels."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=True)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 8 channels a group: the same for any batch size, unlike batch norm."""
    return nn.GroupNorm(channels // 8, channels)
