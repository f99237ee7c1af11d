"""Layers that several architectures share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

START = 0.25  # share of max_depth predicted before training: 2.5 m of 10 m, a usual depth indoors
SHARES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "relu": F.relu,
    "relu6": F.relu6,
}
BIASES = {  # the logit at which each answers START
    "sigmoid": math.log(START / (1 - START)),
    "softplus": math.log(math.expm1(START)),
    "relu": START,
    "relu6": START,
}


class Metres(nn.Module):
    """From logits to metres: max_depth times a share, by a function of SHARES. Holds no weights."""

    def __init__(self, share: str, *, max_depth: float) -> None:
        super().__init__()
        self.share = SHARES[share]
        self.start = BIASES[share]
        self.max_depth = max_depth

    def forward(self, logits: Tensor) -> Tensor:
        """(B,1,H,W) logits -> (B,1,H,W) metres, float32"""
        return self.max_depth * self.share(logits.float())

    def starts_at(self, convolution: nn.Conv2d) -> None:
        """Set the bias of the last convolution so that depths before training lie around START * max_depth."""
        nn.init.constant_(convolution.bias, self.start)  # type: ignore[arg-type]


def enlarge(features: Tensor, size: tuple[int, int], *, corners: bool = True) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W) bilinear; `corners`: corner pixels on corner pixels, else edges on edges."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=corners)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 8 channels a group: the same for any batch size, unlike batch norm."""
    return nn.GroupNorm(channels // 8, channels)
