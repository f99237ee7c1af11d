"""Scores of single protocols: SSIM, and those in which the seed systems published their results.

Each takes the network's prediction, the batch on the device and the depths as the protocol compares them, and returns
(B,) values by name. The legacy ones count pixels without a measurement as depth 0, as their systems did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from depthray.errors import UsageError

if TYPE_CHECKING:  # recipes are checked without waiting for torch
    from torch import Tensor

    from depthray.batch import Batch, Prediction
    from depthray.evaluation.alignment import ComparedDepth

SIZE_001 = (320, 320)
SIZE_003 = (56, 56)
FARTHEST = 10.0  # metres


def depth_ssim(
    prediction: Prediction, batch: Batch, depth: ComparedDepth | None, *, data_range: float
) -> dict[str, Tensor]:
    """(B,1,H,W) metres -> SSIM over the windows of which every pixel is scored."""
    from depthray.evaluation.ssim import ssim

    if depth is None:
        return {}
    p, d = depth.prediction.double(), depth.truth.double()
    return {"ssim": ssim(p, d, data_range=data_range, valid=depth.valid)}


def mae_at_320(prediction: Prediction, batch: Batch, depth: ComparedDepth | None) -> dict[str, Tensor]:
    """Seed 001: (B,1,h,w) metres -> mean |error| in metres at 320x320, truth by the nearest pixel and at most 10 m."""
    from torch.nn import functional

    _check_needs("legacy-001", prediction, batch, "depth")
    # Plain "nearest" looks up corners, as does OpenCV's, by which that system resized its truth.
    truth = functional.interpolate(batch["depth"], size=SIZE_001, mode="nearest").clamp(max=FARTHEST)
    predicted = _resize(prediction["depth"], SIZE_001)
    return {"mae": (predicted.double() - truth.double()).abs().mean(dim=(1, 2, 3))}


def relative_at_56(
    prediction: Prediction, batch: Batch, depth: ComparedDepth | None, *, shares: bool = False
) -> dict[str, Tensor]:
    """Seed 003: (B,1,h,w) metres -> SSIM and mean squared error at 56x56 of depths as shares of their largest.

    With `shares` the network predicts shares, as the seed's did, and they are compared as they are.
    """
    from depthray.evaluation.ssim import ssim

    _check_needs("legacy-003", prediction, batch, "depth")
    # That network predicted shares; metres of one trained here are divided, too, to be compared with shares.
    predicted = prediction["depth"] if shares else _divide_by_largest(prediction["depth"])
    predicted = _resize(predicted, SIZE_003).double()
    truth = _resize(_divide_by_largest(batch["depth"]), SIZE_003).double()
    return {"ssim": ssim(predicted, truth, data_range=1.0), "mse": (predicted - truth).square().mean(dim=(1, 2, 3))}


def mixed_soft_iou(prediction: Prediction, batch: Batch, depth: ComparedDepth | None) -> dict[str, Tensor]:
    """Seed 004: (B,1,h,w) metres and logits -> soft IoU of mask and of depth / 10 m, and their mean."""
    from depthray.evaluation.mask_metrics import probability

    _check_needs("legacy-004", prediction, batch, "depth", "mask")
    truth = batch["depth"].clamp(max=FARTHEST) / FARTHEST
    predicted = _resize(prediction["depth"], tuple(truth.shape[-2:])).clamp(0, FARTHEST) / FARTHEST
    of_mask = soft_iou(probability(prediction["mask"], size=batch["mask"].shape[-2:]), batch["mask"])
    of_depth = soft_iou(predicted, truth)
    # The original added both into one accumulator, so that the figure it published is their mean.
    return {"soft_iou": (of_mask + of_depth) / 2, "soft_iou_mask": of_mask, "soft_iou_depth": of_depth}


def soft_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """(B,1,H,W) and (B,1,H,W) in 0..1 -> (B,) sum of products over sum of both less that of products."""
    product = (predicted.double() * truth.double()).sum(dim=(1, 2, 3))
    both = (predicted.double() + truth.double()).sum(dim=(1, 2, 3))
    return (product + 1e-6) / (both - product + 1e-6)  # the original's smoothing: two empty maps agree


def _check_needs(protocol: str, prediction: Prediction, batch: Batch, *keys: str) -> None:
    for key in keys:
        if key not in prediction or key not in batch:
            lacks = "the network predicts" if key not in prediction else "the data set has"
            raise UsageError(f"protocol {protocol} scores {' and '.join(keys)}, and {lacks} no {key}; use another one")


def _divide_by_largest(depth: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,1,H,W) shares of each frame's largest depth; all 0 where it has none."""
    import torch

    depth = torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0)
    return depth / depth.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)


def _resize(depth: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B,1,h,w) -> (B,1,H,W) bilinearly, smoothed where it shrinks; NaN and infinity are 0."""
    import torch
    from torch.nn import functional

    depth = torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0)
    if tuple(depth.shape[-2:]) == tuple(size):
        return depth
    return functional.interpolate(depth, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)
