"""Numbers as people write them: scores, durations, shares, and the meaning of a metric."""

from __future__ import annotations

import math
import time

from depthray.config.metric_names import HIGHER_IS_BETTER
from depthray.evaluation.metrics import UNITS
from tuning.values import format_number

# How papers write the metrics; UNITS has their units.
NAMES = {
    **{"abs_rel": "AbsRel", "sq_rel": "SqRel", "rmse": "RMSE", "rmse_log": "RMSE of ln depth", "mae": "MAE"},
    **{"silog": "SILog", "log10": "log10 error", "irmse": "iRMSE", "imae": "iMAE", "mse": "MSE", "ssim": "SSIM"},
    **{"delta1": "δ < 1.25", "delta2": "δ < 1.25²", "delta3": "δ < 1.25³", "iou": "mask IoU", "dice": "Dice"},
    **{"boundary_f1": "boundary F1", "soft_iou": "soft IoU"},
    **{"latency_ms": "ms an image", "parameters": "parameters", "nll": "NLL of ln depth"},
    **{"teacher_abs_rel": "AbsRel to the teacher", "teacher_delta1": "δ < 1.25 to the teacher"},
}
# Only metrics that a sentence explains to somebody outside of the field: the others are left out.
_MEANINGS = {
    "abs_rel": "The predicted depth is {share} off on average.",
    "mae": "The predicted depth is {value:.2f} m off on average.",
    "rmse": "The predicted depth is typically {value:.2f} m off, large errors counting more.",
    "delta1": "{share} of the pixels are within a factor of 1.25 of the true depth.",
    "delta2": "{share} of the pixels are within a factor of 1.56 of the true depth.",
    "delta3": "{share} of the pixels are within a factor of 1.95 of the true depth.",
    "iou": "Predicted and true foreground share {share} of their united area.",
}


def metric_title(metric: str) -> str:
    """The name of a metric with its unit."""
    unit = UNITS.get(metric, "")  # x100 is a factor, not a unit
    return f"{NAMES.get(metric, metric)} [{unit}]" if unit and unit != "x100" else NAMES.get(metric, metric)


def meaning(metric: str, value: float) -> str:
    """What a score means for a prediction; "" for metrics that one sentence cannot explain."""
    return _MEANINGS.get(metric, "").format(value=value, share=percent(value, 3))


def score(value: float | None, spread: float | None = None) -> str:
    """A score with four digits, trailing zeros included so that scores line up; with its spread: 0.1320 ± 0.0031."""
    if value is None or not math.isfinite(value):
        return "–"
    decimals = _decimals(value)
    alone = format_number(value) if decimals is None else f"{value:.{decimals}f}"
    return alone if spread is None else f"{alone} ± {format_spread(value, spread)}"


def format_spread(value: float, spread: float) -> str:
    """A spread with the decimals of its score, or with one digit of its own where that would round it to 0."""
    decimals = _decimals(value)
    if decimals is None:
        return format_number(spread, 2)
    text = f"{spread:.{decimals}f}"
    return text if float(text) else format_number(spread, 1)


def _decimals(value: float) -> int | None:
    """The decimals of a score; None for very small and large ones, which are written as `format_number` does."""
    if value == 0 or not 1e-3 <= abs(value) < 1e6:  # fixed decimals would show 0.0000, or digits that mean nothing
        return None
    return max(0, 3 - math.floor(math.log10(abs(value))))


def direction(metric: str) -> str:
    """Whether a metric is better when higher or lower."""
    return "higher is better" if metric in HIGHER_IS_BETTER else "lower is better"


def describe_gain(metric: str, share: float) -> str:
    """A relative gain: 12 % less error, 3.1 % higher."""
    amount = percent(abs(share))
    if metric in HIGHER_IS_BETTER:
        return f"{amount} {'higher' if share >= 0 else 'lower'}"
    return f"{amount} {'less' if share >= 0 else 'more'} error"


def percent(share: float, digits: int = 2) -> str:
    """A share: 12 %, 3.1 %, 0.05 %."""
    return f"{format_number(100 * share, digits if abs(share) < 0.995 else 3)} %"


def duration(seconds: float | None) -> str:
    """A duration: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    if seconds is None:
        return "–"
    minutes = round(seconds / 60)  # each unit is used up to about 100 of it: two digits are enough
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def hours(amount: float) -> str:
    """An amount of hours: 0.024, 1.25, 310."""
    return format_number(amount, 2 if amount < 0.1 else 3)


def date(seconds: float) -> str:
    """Seconds since 1970 as a local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "–"


def format_count(count: float) -> str:
    """A count with three digits: 950, 12.3 k, 2.07 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(count) >= size:
            return f"{format_number(count / (1e3 if unit == 'k' else size), 3)} {unit}"
    return format_number(count, 4)


def plural(count: int, noun: str) -> str:
    """1 trial, 2 trials."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def join_names(names: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
