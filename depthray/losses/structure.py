"""Terms that compare depth window by window."""

from __future__ import annotations

import torch
from torch import Tensor

from depthray.evaluation import ssim as similarity
from depthray.losses._masked import kept


def ssim(depth: Tensor, truth: Tensor, *, valid: Tensor, depth_range: float = 10.0) -> Tensor:
    """(B,1,H,W) metres -> (B,) 1 - SSIM over windows of valid pixels; 0 for an image without one."""
    found = similarity.ssim(kept(depth, valid), kept(truth, valid), data_range=depth_range, valid=valid)
    return torch.where(similarity.seen(valid), 1 - found, 0.0)


def ms_ssim(depth: Tensor, truth: Tensor, *, valid: Tensor, depth_range: float = 10.0) -> Tensor:
    """(B,1,H,W) metres -> (B,) 1 - multi-scale SSIM over windows of valid pixels; 0 for an image without one."""
    found = similarity.ms_ssim(kept(depth, valid), kept(truth, valid), data_range=depth_range, valid=valid)
    return torch.where(similarity.seen(valid), 1 - found, 0.0)
