"""A scale, or a scale and a slope, of ln depth: closed forms of quantiles, so that a few wrong pixels change little.

The scale s with the least mean |s p - t| / t of all frames is the median of the ratios t / p, of which each has the
weight p / t, and each frame the same in all. Which of n values is in the middle is known to 1 / (2 sqrt(n)) of them:
the mean over twice that to both sides stands for the median, so that of twenty points it is less their luck.

A slope is that of weighted least squares through the medians of ten bins of ln p, of at least 100 values; the scale is
then that of p to its power.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 10
LEAST_VALUES = 100  # ten a bin
SLOPES = (0.5, 2.0)  # beyond which a fit says more about its data than about the network

Values = NDArray[np.float64]


class FramePairs(NamedTuple):
    """Pixels or points of one frame that are predicted and measured."""

    id: str
    scene: str
    predicted: Values  # (n,) ln of the network's depth
    measured: Values  # (n,) ln metres


class LogLine(NamedTuple):
    """ln metres = shift + slope x ln prediction."""

    shift: float = 0.0
    slope: float = 1.0

    def abs_rel(self, frame: FramePairs) -> float:
        """The mean relative error of a frame once it is corrected."""
        error = self.shift + self.slope * frame.predicted - frame.measured
        return float(np.abs(np.expm1(error)).mean())


AS_IT_IS = LogLine()


def fit_scale(frames: Sequence[FramePairs]) -> LogLine:
    """The scale of some frames."""
    return LogLine(_shift(frames, 1.0))


def fit_line(frames: Sequence[FramePairs]) -> LogLine:
    """Scale and slope of some frames; the scale alone where their depths are too few or too alike for a slope."""
    predicted = np.concatenate([frame.predicted for frame in frames])
    measured = np.concatenate([frame.measured for frame in frames])
    if len(predicted) < LEAST_VALUES:
        return fit_scale(frames)
    weights = np.concatenate([np.full(len(frame.predicted), 1 / len(frame.predicted)) for frame in frames])
    edges = np.quantile(predicted, np.linspace(0, 1, BINS + 1)[1:-1])
    places = np.searchsorted(edges, predicted, side="right")
    inside = [places == place for place in range(BINS) if (places == place).any()]
    x, y = (np.array([np.median(values[each]) for each in inside]) for values in (predicted, measured))
    weight = np.array([weights[each].sum() for each in inside])
    centred = x - np.average(x, weights=weight)
    spread = np.average(centred**2, weights=weight)
    slope = float(np.average(centred * y, weights=weight) / spread) if spread > 0 else 1.0
    if not SLOPES[0] <= slope <= SLOPES[1]:
        return fit_scale(frames)
    return LogLine(_shift(frames, slope), slope)


def _shift(frames: Sequence[FramePairs], slope: float) -> float:
    """ln of the scale with the least mean relative error, once ln depth is multiplied by the slope."""
    ratios = np.concatenate([frame.measured - slope * frame.predicted for frame in frames])
    shares = np.concatenate([np.full(len(frame.predicted), 1 / len(frame.predicted)) for frame in frames])
    order = np.argsort(ratios, kind="stable")
    weights = (shares * np.exp(ratios.min() - ratios))[order]
    middle = 0.5 + np.linspace(-1, 1, 51) / max(4.0, len(ratios) ** 0.5)
    return float(np.interp(middle, (np.cumsum(weights) - weights / 2) / weights.sum(), ratios[order]).mean())
