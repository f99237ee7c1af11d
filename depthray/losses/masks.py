"""Terms that compare the logits of a foreground mask with the mask, which is known at every pixel."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from depthray.evaluation.ssim import ssim
from depthray.losses._masked import root
from depthray.losses.depth import dice


def mask_bce(logits: Tensor, mask: Tensor) -> Tensor:
    """(B,1,H,W) logits, 0 or 1 -> (B,) mean binary cross-entropy in nats."""
    # From logits: the sigmoid of a sure one rounds to 1 in float32, and the logarithm of the rest to -infinity.
    each = functional.binary_cross_entropy_with_logits(logits.float(), mask.float(), reduction="none")
    return each.mean(dim=(1, 2, 3))


def mask_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """(B,1,H,W) logits, 0 or 1 -> (B,) 1 - (2 sum py + 1) / (sum p + sum y + 1) of the probability p, per image."""
    # Probabilities here and below: the original (seed 004) compared raw logits with masks of 0 and 1.
    return dice(logits.float().sigmoid(), mask.float())


def mask_rmse(logits: Tensor, mask: Tensor) -> Tensor:
    """(B,1,H,W) logits, 0 or 1 -> (B,) root of the mean squared error of the probability."""
    return root((logits.float().sigmoid() - mask.float()).square().mean(dim=(1, 2, 3)))


def mask_ssim(logits: Tensor, mask: Tensor) -> Tensor:
    """(B,1,H,W) logits, 0 or 1 -> (B,) 1 - SSIM of the probability."""
    return 1 - ssim(logits.float().sigmoid(), mask.float(), data_range=1.0)
