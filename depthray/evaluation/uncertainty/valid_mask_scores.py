"""How well a network knows where there is no depth to measure: scores of its mask of valid pixels.

The truth of a pixel is one of three: depth is measured within the limits of the network's training; it is measured
beyond them, as that of sky; or it is missing. Of a missing one a data set may say which of the first two it is. Scores
are of the class `invalid`, over the pixels of all frames, for a frame may have none of it: once with missing pixels as
invalid, and once, where there are pixels beyond the limits, without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthray.batch import Batch, Prediction
from depthray.data.source import NO, YES
from depthray.evaluation import bootstrap
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.mask_metrics import probability

BINS = 128  # steps of the probability that a pixel is valid; half of them say that it is not
CLASSES = ("valid", "beyond", "missing")
SCORES = ("precision", "recall", "iou", "accuracy", "auroc")
TITLES = {"precision": "precision", "recall": "recall", "iou": "IoU", "accuracy": "accuracy", "auroc": "AUROC"}
NOTE = (
    "Invalid are pixels whose probability of a depth is below one half; precision, recall and IoU are of these, "
    "accuracy of all. AUROC is how often an invalid pixel has a lower probability than a valid one. Over the pixels of "
    "all frames. Of truth with gaps everywhere, as that of a LiDAR, missing pixels say nothing."
)

Counts = NDArray[np.float64]  # (CLASSES,BINS) pixels of a frame by truth and predicted probability


def of_frames(prediction: Prediction, batch: Batch, limits: tuple[float, float]) -> Sequence[Counts | None]:
    """(B,1,h,w) logits, the truth (B,1,H,W) -> the counts of each frame; None where there is no mask or no depth.

    Depth between the limits, in metres, is valid.
    """
    if "valid" not in prediction or "depth" not in batch:
        return [None] * len(batch["id"])
    truth, (least, most) = batch["depth"], limits
    steps = (probability(prediction["valid"], size=truth.shape[-2:]) * BINS).long().clamp(max=BINS - 1)
    missing = torch.full_like(steps, CLASSES.index("missing"))
    if "measurable" in batch:
        said = batch["measurable"]
        missing = torch.where(said == YES, 0, torch.where(said == NO, 1, missing))
    kinds = torch.where((truth > least) & (truth < most), 0, torch.where(truth > 0, 1, missing))
    return [_counts(frame) for frame in (kinds * BINS + steps).flatten(1)]


def _counts(places: Tensor) -> Counts:
    counts = torch.bincount(places, minlength=len(CLASSES) * BINS).view(len(CLASSES), BINS)
    return np.asarray(counts.cpu().numpy(), np.float64)


def means(frames: Sequence[Counts]) -> dict[str, float]:
    """The scores over the pixels of all frames, missing ones as invalid, by names that begin with `invalid_`."""
    values = _scores(np.sum(frames, axis=0).reshape(1, -1), missing=True)[0]
    return {f"invalid_{name}": value for name, value in zip(SCORES, values.tolist(), strict=True)}


def summary(frames: Sequence[Counts], scenes: Sequence[str]) -> dict[str, Any]:
    """Scores with 95 % intervals over scenes, the share of each class, and how much of each is called invalid."""
    total = np.sum(frames, axis=0)
    pixels, called = total.sum(axis=1), total[:, : BINS // 2].sum(axis=1)
    parts = {"overall": True, **({"without_missing": False} if pixels[1] else {})}
    table = np.stack(frames).reshape(len(frames), -1)
    classes = {
        name: {"share": float(count / pixels.sum()), "called_invalid": float(part / count)}
        for name, count, part in zip(CLASSES, pixels, called, strict=True)
        if count
    }
    return {"classes": classes, **{name: _with_ends(table, scenes, missing) for name, missing in parts.items()}}


def _with_ends(table: Counts, scenes: Sequence[str], missing: bool) -> dict[str, dict[str, float]]:
    """(N,CLASSES*BINS) -> score by name with its interval"""
    mean = _scores(table.sum(axis=0, keepdims=True), missing=missing)[0].tolist()
    low, high = bootstrap.intervals(table, scenes, finish=lambda drawn: _scores(drawn, missing=missing)).tolist()
    rows = zip(SCORES, mean, low, high, strict=True)
    return {name: {"mean": each, "low": least, "high": most} for name, each, least, most in rows}


def _scores(counts: Counts, *, missing: bool) -> Counts:
    """(K,CLASSES*BINS) counts -> (K,SCORES); NaN where there is nothing to divide by"""
    by_class = counts.reshape(len(counts), len(CLASSES), BINS)
    valid, invalid = by_class[:, 0], by_class[:, 1] + (by_class[:, 2] if missing else 0)
    half = BINS // 2
    right, wrong = invalid[:, :half].sum(axis=1), valid[:, :half].sum(axis=1)
    missed, kept = invalid[:, half:].sum(axis=1), valid[:, half:].sum(axis=1)
    # Of all pairs of a valid and an invalid pixel those in order, and half of those in one bin.
    below = np.cumsum(invalid, axis=1) - invalid / 2
    pairs = (valid * below).sum(axis=1)
    parts = {
        "precision": (right, right + wrong),
        "recall": (right, right + missed),
        "iou": (right, right + wrong + missed),
        "accuracy": (right + kept, right + wrong + missed + kept),
        "auroc": (pairs, valid.sum(axis=1) * invalid.sum(axis=1)),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([np.divide(*parts[name]) for name in SCORES], axis=1)


def sections(valid_mask: Mapping[str, Any]) -> list[str]:
    """A summary as Markdown."""
    columns = {"overall": "all pixels", "without_missing": "without missing"}
    shown = {key: title for key, title in columns.items() if key in valid_mask}
    lines = [[TITLES[name], *(_cell(valid_mask[key][name]) for key in shown)] for name in SCORES]
    classes = [
        [name, f"{100 * each['share']:.1f} %", f"{100 * each['called_invalid']:.1f} %"]
        for name, each in valid_mask["classes"].items()
    ]
    return [
        "## Where there is no depth",
        markdown_table(["of invalid pixels", *shown.values()], lines),
        markdown_table(["truth", "of all pixels", "called invalid"], classes),
        NOTE,
    ]


def _cell(value: Mapping[str, float]) -> str:
    if np.isnan(value["mean"]):
        return "-"
    return f"{value['mean']:.4f} ({value['low']:.4f} to {value['high']:.4f})"
