"""Layers that several architectures share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.models.layers import symbolic_size

NEAREST, FARTHEST = 0.001, 0.999  # shares of max_depth a guide is clamped to, where every activation has an inverse
START = 0.25  # share of max_depth predicted before training: 2.5 m of 10 m, a usual depth indoors
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "relu": F.relu,
    "relu6": F.relu6,
}


def _softplus_inverse(share: Tensor) -> Tensor:
    """Shares above 0 -> the logits that softplus takes to them."""
    return share.expm1().log()


INVERSES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.logit,
    "softplus": _softplus_inverse,
    "relu": torch.positive,  # itself
    "relu6": torch.positive,
}
BIASES = {  # the logit at which each activation is START
    "sigmoid": math.log(START / (1 - START)),
    "softplus": math.log(math.expm1(START)),
    "relu": START,
    "relu6": START,
}


class DepthHead(nn.Module):
    """Logits to metres: max_depth times a share, by one of ACTIVATIONS. Holds no weights."""

    def __init__(self, activation: str, *, max_depth: float) -> None:
        super().__init__()
        self.activation, self.inverse = ACTIVATIONS[activation], INVERSES[activation]
        self.bias = BIASES[activation]
        self.max_depth = max_depth

    def forward(self, logits: Tensor, guide: Tensor | None = None) -> Tensor:
        """(B,1,h,w) logits, (B,1,H,W) metres to start from or 0 -> (B,1,h,w) metres, float32.

        With a guide the logits are the difference from it: a network that completes sparse depth need not learn to copy
        it first.
        """
        # float32 from here on: bf16 has steps of 6 cm between 8 and 16 m.
        logits = logits.float()
        return self.max_depth * self.activation(logits if guide is None else logits + self._guide_logits(guide, logits))

    def _guide_logits(self, guide: Tensor, logits: Tensor) -> Tensor:
        """(B,1,H,W) metres -> (B,1,h,w) to add to logits of START to predict the guide; 0 where the guide is 0"""
        mean = symbolic_size.adaptive_mean if torch.compiler.is_exporting() else F.adaptive_avg_pool2d
        near = mean(guide.float(), (logits.shape[-2], logits.shape[-1]))  # (B,1,h,w)
        share = (near / self.max_depth).clamp(NEAREST, FARTHEST)
        return torch.where(near > 0, self.inverse(share) - self.bias, 0.0)

    def init_bias(self, convolution: nn.Conv2d) -> None:
        """Set the bias of the last convolution so that depths before training are around START * max_depth."""
        nn.init.constant_(convolution.bias, self.bias)  # type: ignore[arg-type]


def upsample(features: Tensor, size: tuple[int, int], *, corners: bool = True) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W) bilinear; `corners` is torch's align_corners."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=corners)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 8 channels a group: the same for any batch size, unlike batch norm."""
    return nn.GroupNorm(channels // 8, channels)
