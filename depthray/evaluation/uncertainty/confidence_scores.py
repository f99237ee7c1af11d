"""The confidence of many frames in numbers: means over frames with intervals, curves, and all of that by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from depthray.evaluation import bootstrap
from depthray.evaluation.metrics import RANGES
from depthray.evaluation.uncertainty.sparsification import (
    BINS,
    CURVES,
    LEVELS,
    REMOVED,
    STEPS,
    FrameConfidence,
    Values,
)

SHARES = (68, 95)  # percent of pixels that an interval should hold
KEPT = 0.2  # of pixels removed, for the error of the others
SCORES = (
    *("nll", "coverage68", "coverage95"),
    *("ause_rmse", "aurg_rmse", "ause_abs_rel", "aurg_abs_rel", "rmse_of_80", "rmse_drop"),
)
_AXIS = np.append(REMOVED, 1.0)


def table(frames: Sequence[FrameConfidence], number: int = 0) -> Values:
    """(N) frames -> (N,SCORES) of one range of depth, NaN where a frame has too few pixels in it"""
    curves = {name: np.stack([frame.curves[place, number] for frame in frames]) for place, name in enumerate(CURVES)}
    coverage = np.stack([_coverage(frame.levels[number]) for frame in frames])
    rows = {"nll": np.array([frame.likelihood[number] for frame in frames])}
    rows |= {f"coverage{share}": coverage[:, share - 1] for share in SHARES}
    for name in ("rmse", "abs_rel"):
        # At the end nothing is left, and its error is 0, as Poggi et al. have it.
        left, best = (_area(curves[each]) for each in (name, f"{name}_oracle"))
        rows |= {f"ause_{name}": left - best, f"aurg_{name}": curves[name][:, 0] - left}
    rows["rmse_of_80"] = curves["rmse"][:, round(KEPT * STEPS)]
    rows["rmse_drop"] = 1 - rows["rmse_of_80"] / curves["rmse"][:, 0]
    return np.stack([rows[name] for name in SCORES], axis=1)


def means(frames: Sequence[FrameConfidence], number: int = 0) -> dict[str, float]:
    """The mean over frames by name of SCORES, in a range of depth; NaN where no frame has enough pixels in it."""
    return dict(zip(SCORES, _mean(table(frames, number)).tolist(), strict=True))


def summary(frames: Sequence[FrameConfidence], scenes: Sequence[str], *, family: str) -> dict[str, Any]:
    """Scores with 95 % intervals over scenes, by range of depth, the sparsification curves, and reliability."""
    rows = table(frames)
    low, high = bootstrap.intervals(rows, scenes)
    ends = zip(SCORES, _mean(rows).tolist(), low.tolist(), high.tolist(), strict=True)
    curves = {name: _mean(np.stack([frame.curves[place, 0] for frame in frames])) for place, name in enumerate(CURVES)}
    bins = np.sum([frame.bins for frame in frames], axis=0)
    return {
        "distribution": family,
        "overall": {name: {"mean": mean, "low": least, "high": most} for name, mean, least, most in ends},
        "ranges": [{"range": name, **means(frames, number)} for number, name in enumerate(RANGES) if number],
        "sparsification": {"removed": REMOVED.tolist(), **{name: curve.tolist() for name, curve in curves.items()}},
        "pooled_rmse_drop": pooled_drop(np.sum([frame.widths for frame in frames], axis=0)),
        "reliability": {
            "interval": [(level + 1) / LEVELS for level in range(LEVELS)],
            "coverage": _mean(np.stack([_coverage(frame.levels[0]) for frame in frames])).tolist(),
        },
        "confidence": [
            {"from": level / LEVELS, **dict(zip(BINS, row, strict=True))} for level, row in enumerate(bins.tolist())
        ],
    }


def pooled_drop(widths: Values) -> float:
    """(N,2) pixels and squared errors of all frames by sigma -> by which share RMSE falls without the widest fifth"""
    count, square = widths[::-1].T
    total = count.sum()
    if not total or not square.sum():
        return float("nan")
    # Of the step in which the fifth ends a part goes, with that part of its errors.
    before = np.concatenate([[0.0], np.cumsum(count)[:-1]])
    gone = np.clip((KEPT * total - before) / np.maximum(count, 1), 0, 1)
    left = (square * (1 - gone)).sum() / ((1 - KEPT) * total)
    return float(1 - np.sqrt(left / (square.sum() / total)))


def _coverage(levels: Values) -> Values:
    """(LEVELS,) pixels by the least interval that holds the truth -> (LEVELS,) share that each interval holds"""
    count = float(levels.sum())
    return np.asarray(np.cumsum(levels) / count if count else np.full(LEVELS, np.nan), np.float64)


def _area(curves: Values) -> Values:
    """(N,STEPS) errors while pixels are removed -> (N,) the area below, from none removed to all"""
    return np.asarray(np.trapezoid(np.pad(curves, ((0, 0), (0, 1))), _AXIS, axis=1))


def _mean(rows: Values) -> Values:
    """(N,M) -> (M,) means of what is a number; NaN where nothing is"""
    known = ~np.isnan(rows)
    return np.asarray(np.where(known, rows, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan))
