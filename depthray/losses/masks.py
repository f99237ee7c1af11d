"""Terms that compare the logits of a foreground mask with the mask, at the pixels where the mask is known.

That is everywhere (`mask_valid` is None), except where a rotated image shows what was not photographed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from depthray.evaluation.ssim import has_window, ssim
from depthray.losses._masked import keep_valid, mean, root
from depthray.losses.depth import dice


def mask_bce(logits: Tensor, mask: Tensor, mask_valid: Tensor | None = None) -> Tensor:
    """(B,1,H,W) logits, 0 or 1 -> (B,) mean binary cross-entropy in nats."""
    # From logits: the sigmoid of a sure one rounds to 1 in float32, and the logarithm of the rest to -infinity.
    each = functional.binary_cross_entropy_with_logits(_known(logits, mask_valid), mask.float(), reduction="none")
    return _mean(each, mask_valid)


def mask_dice(logits: Tensor, mask: Tensor, mask_valid: Tensor | None = None) -> Tensor:
    """(B,1,H,W) logits, 0 or 1 -> (B,) 1 - (2 sum py + 1) / (sum p + sum y + 1) of the probability p, per image."""
    # Probabilities here and below: the original (seed 004) compared raw logits with masks of 0 and 1.
    return dice(_known(_known(logits, mask_valid).sigmoid(), mask_valid), _known(mask, mask_valid))


def mask_rmse(logits: Tensor, mask: Tensor, mask_valid: Tensor | None = None) -> Tensor:
    """(B,1,H,W) logits, 0 or 1 -> (B,) root of the mean squared error of the probability."""
    return root(_mean((_known(logits, mask_valid).sigmoid() - mask.float()).square(), mask_valid))


def mask_ssim(logits: Tensor, mask: Tensor, mask_valid: Tensor | None = None) -> Tensor:
    """(B,1,H,W) logits, 0 or 1 -> (B,) 1 - SSIM of the probability; 0 where no window is known throughout."""
    loss = 1 - ssim(_known(logits, mask_valid).sigmoid(), mask.float(), data_range=1.0, valid=mask_valid)
    return loss if mask_valid is None else torch.where(has_window(mask_valid), loss, 0.0)


def _known(values: Tensor, mask_valid: Tensor | None) -> Tensor:
    """(B,1,H,W) -> the same in float32, 0 where the mask is void."""
    return values.float() if mask_valid is None else keep_valid(values, mask_valid)


def _mean(values: Tensor, mask_valid: Tensor | None) -> Tensor:
    """(B,1,H,W) -> (B,) mean over the pixels where the mask is known, 0 if there are none."""
    return values.mean(dim=(1, 2, 3)) if mask_valid is None else mean(values, mask_valid)
