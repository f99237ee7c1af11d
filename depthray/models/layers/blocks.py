"""Layers that several architectures share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 1e-2  # of the mean square of features: those of less are not scaled up to unit size
GREY, CONTRAST = 0.45, 4.0  # of colour in [0,1]: its middle, and one over its spread


def upsample(features: Tensor, size: tuple[int, int], *, corners: bool = True) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W) bilinear; `corners` is torch's align_corners."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=corners)


def unit_size(features: Tensor) -> Tensor:
    """(B,C,h,w) -> the same of mean square 1 in each pixel, float32: without a norm before, they may be thousands"""
    features = features.float()
    return features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + LEAST)


def unit_colour(image: Tensor) -> Tensor:
    """(B,3,H,W) colour in [0,1] -> the same of about unit size around 0"""
    return (image - GREY) * CONTRAST


def shifted(values: Tensor, places: list[tuple[int, int]], *, reach: int) -> Tensor:
    """(B,1,H,W) -> (B,N,H,W) the value at each of N places around a pixel; beyond the edge that of the edge"""
    height, width = values.shape[-2], values.shape[-1]
    padded = F.pad(values, (reach, reach, reach, reach), mode="replicate")
    rows = [(reach + row, reach + column) for row, column in places]
    return torch.cat([padded[..., top : top + height, left : left + width] for top, left in rows], dim=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 8 channels a group: the same for any batch size, unlike batch norm."""
    return nn.GroupNorm(channels // 8, channels)
