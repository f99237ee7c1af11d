"""Scores that single protocols have of their own: SSIM, and those the seed systems published theirs in.

Each takes the network's prediction, the batch on the device and the depths as the protocol compares them, and returns
(B,) values by name. The legacy ones count what was not measured as depth 0, as their systems did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from depthray.errors import UsageError

if TYPE_CHECKING:  # recipes are checked without waiting for torch
    from torch import Tensor

    from depthray.batch import Batch, Prediction
    from depthray.evaluation.alignment import Depths

SQUASHED = (320, 320)
SMALL = (56, 56)
FARTHEST = 10.0  # metres


def depth_ssim(prediction: Prediction, batch: Batch, depth: Depths | None, *, data_range: float) -> dict[str, Tensor]:
    """(B,1,H,W) metres -> SSIM over the windows of which every pixel is scored."""
    from depthray.evaluation.ssim import ssim

    if depth is None:
        return {}
    p, d = depth.prediction.double(), depth.truth.double()
    return {"ssim": ssim(p, d, data_range=data_range, valid=depth.valid)}


def mae_of_squashed(prediction: Prediction, batch: Batch, depth: Depths | None) -> dict[str, Tensor]:
    """Seed 001: (B,1,h,w) metres -> mean |error| in metres at 320x320, truth by the nearest pixel and at most 10 m."""
    from torch.nn import functional

    _need("legacy-001", prediction, batch, "depth")
    truth = functional.interpolate(batch["depth"], size=SQUASHED, mode="nearest").clamp(max=FARTHEST)
    found = _resized(prediction["depth"], SQUASHED)
    return {"mae": (found.double() - truth.double()).abs().mean(dim=(1, 2, 3))}


def relative_at_56(prediction: Prediction, batch: Batch, depth: Depths | None) -> dict[str, Tensor]:
    """Seed 003: (B,1,h,w) metres -> SSIM and mean squared error at 56x56 of depths as shares of their largest."""
    from depthray.evaluation.ssim import ssim

    _need("legacy-003", prediction, batch, "depth")
    found = _resized(_relative(prediction["depth"]), SMALL).double()
    truth = _resized(_relative(batch["depth"]), SMALL).double()
    return {"ssim": ssim(found, truth, data_range=1.0), "mse": (found - truth).square().mean(dim=(1, 2, 3))}


def mixed_soft_iou(prediction: Prediction, batch: Batch, depth: Depths | None) -> dict[str, Tensor]:
    """Seed 004: (B,1,h,w) metres and logits -> soft IoU of mask and of depth / 10 m, and their mean."""
    from depthray.evaluation.mask_metrics import probability

    _need("legacy-004", prediction, batch, "depth", "mask")
    truth = batch["depth"].clamp(max=FARTHEST) / FARTHEST
    found = _resized(prediction["depth"], tuple(truth.shape[-2:])).clamp(0, FARTHEST) / FARTHEST
    of_mask = soft_iou(probability(prediction["mask"], size=batch["mask"].shape[-2:]), batch["mask"])
    of_depth = soft_iou(found, truth)
    return {"soft_iou": (of_mask + of_depth) / 2, "soft_iou_mask": of_mask, "soft_iou_depth": of_depth}


def soft_iou(found: Tensor, truth: Tensor) -> Tensor:
    """(B,1,H,W) and (B,1,H,W) in 0..1 -> (B,) sum of products over sum of both less that of products."""
    product = (found.double() * truth.double()).sum(dim=(1, 2, 3))
    both = (found.double() + truth.double()).sum(dim=(1, 2, 3))
    return (product + 1e-6) / (both - product + 1e-6)


def _need(protocol: str, prediction: Prediction, batch: Batch, *keys: str) -> None:
    for key in keys:
        if key not in prediction or key not in batch:
            lacks = "the network predicts" if key not in prediction else "the data set has"
            raise UsageError(f"protocol {protocol} scores {' and '.join(keys)}, and {lacks} no {key}; use another one")


def _relative(depth: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,1,H,W) shares of each frame's largest depth; all 0 where it has none."""
    import torch

    depth = torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0)
    return depth / depth.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)


def _resized(depth: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B,1,h,w) -> (B,1,H,W) bilinearly, smoothed where it shrinks; NaN and infinity are 0."""
    import torch
    from torch.nn import functional

    depth = torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0)
    if tuple(depth.shape[-2:]) == tuple(size):
        return depth
    return functional.interpolate(depth, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)
