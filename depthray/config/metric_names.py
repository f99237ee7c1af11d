"""Which metrics are better when higher, and one key to rank all of them by."""

from __future__ import annotations

HIGHER_IS_BETTER = (  # better when higher; all others when lower
    *("delta1", "delta2", "delta3", "ssim", "iou", "dice", "boundary_f1"),
    *("soft_iou", "soft_iou_mask", "soft_iou_depth", "teacher_delta1"),
    *("invalid_precision", "invalid_recall", "invalid_iou", "invalid_accuracy", "invalid_auroc"),
)


def rank_key(name: str, value: float) -> float:
    """A metric's value as a number that is lower when better; NaN stays NaN."""
    return -value if name in HIGHER_IS_BETTER else value
