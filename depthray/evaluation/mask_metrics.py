"""Scores of a predicted foreground mask: its overlap with the truth, and the agreement of their boundaries."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

MASK_METRICS = ("iou", "dice", "boundary_f1")
TOLERANCE = 0.008  # of the image's diagonal: how far a boundary may be off, rounded up to whole pixels


def mask_scores(logits: Tensor, truth: Tensor, *, valid: Tensor | None = None) -> dict[str, Tensor]:
    """(B,1,h,w) logits and (B,1,H,W) mask 0 or 1 -> (B,) float64 by name of MASK_METRICS.

    The logits are resized bilinearly to the truth's size; a pixel is foreground where its probability is above 1/2.
    NaN is background. Two empty masks agree fully: 1; where only one of the two is empty every score is 0. Pixels
    that are not `valid`, all by default, are left out.
    """
    predicted, true = probability(logits, size=truth.shape[-2:]) > 0.5, truth > 0.5
    if valid is not None:
        predicted, true = predicted & valid, true & valid
    both, either = _count(predicted & true), _count(predicted | true)
    return {
        "iou": _share(both, either),
        "dice": _share(2 * both, both + either),
        "boundary_f1": boundary_f1(predicted, true, radius=tolerance(*truth.shape[-2:]), valid=valid),
    }


def probability(logits: Tensor, *, size: tuple[int, ...]) -> Tensor:
    """(B,1,h,w) logits -> (B,1,H,W) float32 probability of foreground, the logits resized bilinearly; NaN is 0."""
    # 100 is as good as infinite for a sigmoid, and unlike it can be interpolated.
    logits = torch.nan_to_num(logits.float(), nan=-100.0, posinf=100.0, neginf=-100.0)
    if logits.shape[-2:] != size:
        logits = functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
    return logits.sigmoid()


def tolerance(height: int, width: int) -> int:
    """Pixels a boundary may be off in an image of that size."""
    return math.ceil(TOLERANCE * math.hypot(height, width))  # as the DAVIS benchmark (Perazzi et al. 2016) has it


def boundary_f1(predicted: Tensor, true: Tensor, *, radius: int, valid: Tensor | None = None) -> Tensor:
    """(B,1,H,W) bool masks -> (B,) float64: harmonic mean of the shares of each boundary within radius of the other.

    Of two masks without a boundary: 1 if they are the same, else 0.
    """
    ours, theirs = boundary(predicted, valid), boundary(true, valid)
    precision = _share(_count(ours & _dilate(theirs, radius)), _count(ours))
    recall = _share(_count(theirs & _dilate(ours, radius)), _count(theirs))
    # The clamp decides only where both are 0: then the score is 0.
    score = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    same = (_count(predicted ^ true) == 0).double()
    return torch.where(_count(ours | theirs) > 0, score, same)


def boundary(mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B,1,H,W) bool -> (B,1,H,W) bool: foreground with background above, below, left or right of it.

    The edge of the image, and of what is valid, is no boundary: what is beyond it is unknown.
    """
    covering = mask if valid is None else mask | ~valid
    around = functional.pad(covering.float(), (1, 1, 1, 1), mode="replicate") > 0
    inner = around[..., :-2, 1:-1] & around[..., 2:, 1:-1] & around[..., 1:-1, :-2] & around[..., 1:-1, 2:]
    return mask & ~inner


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """(B,1,H,W) bool -> (B,1,H,W) bool: every pixel within a radius of one that is set."""
    span = torch.arange(-radius, radius + 1, device=mask.device)
    # A disc, as the tolerance is a distance; max pooling would grow by a square.
    disc = (span[:, None].square() + span.square() <= radius**2).float()
    return functional.conv2d(mask.float(), disc[None, None], padding=radius) > 0.5


def _count(mask: Tensor) -> Tensor:
    """(B,1,H,W) bool -> (B,) float64."""
    return mask.sum(dim=(1, 2, 3)).double()


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """(B,) and (B,) -> (B,) part / whole; 1 of nothing."""
    return torch.where(whole > 0, part / whole.clamp(min=1), 1.0)
