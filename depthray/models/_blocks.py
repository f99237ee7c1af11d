"""Layers that several architectures share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEAREST, FARTHEST = 0.001, 0.999  # shares of max_depth a guide is kept to, where every function has an inverse
START = 0.25  # share of max_depth predicted before training: 2.5 m of 10 m, a usual depth indoors
SHARES: dict[str, Callable[[Tensor], Tensor]] = {
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
        self.share, self.inverse = SHARES[share], INVERSES[share]
        self.start = BIASES[share]
        self.max_depth = max_depth

    def forward(self, logits: Tensor, guide: Tensor | None = None) -> Tensor:
        """(B,1,h,w) logits, (B,1,H,W) metres to start from or 0 -> (B,1,h,w) metres, float32.

        With a guide the logits say how the answer differs from it: a network that completes sparse depth need not learn
        to copy it first.
        """
        logits = logits.float()
        return self.max_depth * self.share(logits if guide is None else logits + self._lead(guide, logits))

    def _lead(self, guide: Tensor, logits: Tensor) -> Tensor:
        """(B,1,H,W) metres -> (B,1,h,w) what to add to logits of START for the guide to be the answer; 0 without one"""
        near = F.adaptive_avg_pool2d(guide.float(), (logits.shape[-2], logits.shape[-1]))
        share = (near / self.max_depth).clamp(NEAREST, FARTHEST)
        return torch.where(near > 0, self.inverse(share) - self.start, 0.0)

    def starts_at(self, convolution: nn.Conv2d) -> None:
        """Set the bias of the last convolution so that depths before training lie around START * max_depth."""
        nn.init.constant_(convolution.bias, self.start)  # type: ignore[arg-type]


def enlarge(features: Tensor, size: tuple[int, int], *, corners: bool = True) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W) bilinear; `corners`: corner pixels on corner pixels, else edges on edges."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=corners)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 8 channels a group: the same for any batch size, unlike batch norm."""
    return nn.GroupNorm(channels // 8, channels)
