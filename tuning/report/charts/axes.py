"""Axes: values -> positions on a chart, with round ticks; linear, logarithmic, or with a position for each choice."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from depthray.imaging.ticks import round_step
from tuning.report.charts.marks import Mark, Point, dot, element, line, text, trial
from tuning.values import format_number, format_value, is_number

# Sizes in the units of an SVG's viewBox: a chart of half the page's width, one of a third, one of all of it.
WIDTH, HEIGHT = 560, 340
SMALL_WIDTH, SMALL_HEIGHT = 360, 250
WIDE = 1140
LEFT, TOP, RIGHT, FOOT = 64, 44, 18, 50  # margins of a chart of half the width, for the labels
PAD = 0.06  # share of its range that an axis has beyond each end


class Axis(NamedTuple):
    """A range of values, or choices next to each other."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False
    choices: tuple[str, ...] = ()
    title: str = ""
    hint: str = ""  # e.g. "lower is better"

    def share(self, value: Any) -> float:
        """The position of a value, from 0 at the low end to 1 at the high end; clamped to the ends."""
        return min(max(self.unclamped(value), 0.0), 1.0)

    def unclamped(self, value: Any) -> float:
        """The position of a value, below 0 or above 1 beyond the ends."""
        if self.choices:
            return (self.choices.index(format_value(value)) + 0.5) / len(self.choices)
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, float(value)))
        return (at - low) / (high - low)

    def holds(self, value: Any) -> bool:
        """Whether a value has a position on the axis."""
        if self.choices:
            return format_value(value) in self.choices
        return is_number(value) and (not self.log or value > 0)

    def clamps(self, value: float) -> bool:
        """Whether a value is beyond the ends, and so is drawn at one of them."""
        return not self.choices and not self.low <= value <= self.high

    def labels(self) -> list[tuple[float, str]]:
        """Each tick as (position, label)."""
        if self.choices:
            return [((index + 0.5) / len(self.choices), choice) for index, choice in enumerate(self.choices)]
        return [(self.share(tick), format_number(tick, 3)) for tick in self.ticks]

    @property
    def higher_is_better(self) -> bool:
        """Whether the hint says so."""
        return self.hint.startswith("higher")


class Box(NamedTuple):
    """The part of a chart that data are drawn in, with an axis to the right and one upwards."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def x_at(self, value: Any) -> float:
        """The x of a value."""
        return self.left + self.x.share(value) * self.width

    def y_at(self, value: Any) -> float:
        """The y of a value."""
        return self.top + (1 - self.y.share(value)) * self.height

    def at(self, x: Any, y: Any) -> Point:
        """The point of a pair of values."""
        return self.x_at(x), self.y_at(y)

    def unclamped(self, x: Any, y: Any) -> Point:
        """The point of a pair of values, outside of the box if it is beyond an end."""
        return self.left + self.x.unclamped(x) * self.width, self.top + (1 - self.y.unclamped(y)) * self.height

    @property
    def bottom(self) -> float:
        """The y of the lower edge."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """The x of the right edge."""
        return self.left + self.width


def chart_box(x: Axis, y: Axis) -> Box:
    """The box of a chart of half the page's width."""
    return Box(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - FOOT, x, y)


def small_box(x: Axis, y: Axis) -> Box:
    """The box of a chart of a third of the page's width."""
    return Box(58, 36, SMALL_WIDTH - 58 - 14, SMALL_HEIGHT - 36 - 48, x, y)


def axis(values: Iterable[float], *, log: bool = False, count: int = 5, pad: float = PAD, title: str = "") -> Axis:
    """An axis around the finite values, a little beyond; without any, 0 to 1; around a single one, some space."""
    finite = [float(value) for value in values if is_number(value) and (not log or value > 0)]
    low, high = (min(finite), max(finite)) if finite else (0.1, 1.0) if log else (0.0, 1.0)
    if log:
        low, high = _pad_log(low, high, pad)
        return Axis(low, high, _log_ticks(low, high, count), log=True, title=title)
    low, high = _pad(low, high, pad)
    return Axis(low, high, _ticks(low, high, count), title=title)


def integer_axis(values: Iterable[int], *, count: int = 6, title: str = "") -> Axis:
    """An axis of whole numbers, such as epochs, from the least to the greatest with half a step of space."""
    numbers = list(values)
    low, high = (min(numbers), max(numbers)) if numbers else (0, 1)
    ticks = tuple(tick for tick in _ticks(low, high, count) if tick == round(tick)) if high > low else (low,)
    return Axis(low - 0.5, high + 0.5, ticks, title=title)


def epoch_axis(epochs: int) -> Axis:
    """An axis from the start of a training to the end of its last epoch."""
    return axis([0, max(epochs, 1)], pad=0.0, title="epoch")


def choice_axis(values: Iterable[Any], *, ordered: bool = False, title: str = "") -> Axis:
    """An axis with a position for each of the values, in their order or sorted, numbers first."""
    distinct = {format_value(value): value for value in values}
    names = list(distinct) if ordered else sorted(distinct, key=lambda name: _choice_order(distinct[name]))
    return Axis(0, 1, (), choices=tuple(names or [""]), title=title)


def score_axis(values: Iterable[float | None], *, higher: bool, title: str = "", log: bool = False) -> Axis:
    """An axis of scores that bad outliers do not widen: those are drawn at its end."""
    scores = np.array([value for value in values if value is not None and math.isfinite(value)])
    if scores.size:
        sign = -1.0 if higher else 1.0
        ranks = scores * sign  # lower is better
        # Tukey's fence, with the best score as lower quartile: good scores, however far ahead, are never cut off.
        limit = np.percentile(ranks, 75) + 1.5 * (np.percentile(ranks, 75) - ranks.min())
        scores = ranks[ranks <= max(limit, ranks.min())] * sign
    hint = "higher is better" if higher else "lower is better"
    return axis(scores.tolist(), title=title, log=log)._replace(hint=hint)


def score_point(mark: Mark, at: Point, *, score: float, axis: Axis, radius: float = 5.0) -> str:
    """A trial as a point, or as an arrow if its score is beyond the end of the axis."""
    if not axis.clamps(score):
        return dot(mark, at, radius=radius)
    x, y = at
    tip = -7 if score > axis.high else 7
    arrow = element("path", d=f"M{x - 5:.1f} {y - tip / 2:.1f}h10l-5 {tip}z", cls="m")
    return trial(mark, arrow)


def default_level(box: Box, value: Any, label: str = "") -> str:
    """The value of the baseline as a line across, with a label at its right end."""
    y = box.y_at(value)
    parts = [line((box.left, y), (box.right, y), cls="level")]
    if label:
        # Above the line, but below it where the title of the axis is.
        parts.append(text(label, (box.right, y - 6 if y - box.top > 24 else y + 16), cls="label", anchor="end"))
    return element("g", *parts, cls="default")


def draw(box: Box, *, grid: bool = True) -> str:
    """The frame of a chart: grid, ticks, labels, and the titles of its axes."""
    parts = [line((box.left, box.bottom), (box.right, box.bottom), cls="rule")]
    for share, label in box.y.labels():
        y = box.top + (1 - share) * box.height
        parts += [line((box.left, y), (box.right, y), cls="grid")] if grid else []
        parts.append(text(label, (box.left - 7, y + 4), cls="tick", anchor="end"))
    parts.append(x_labels(box))
    parts.append(text(_axis_title(box.y), (4, box.top - 18), cls="name"))
    parts.append(text(_axis_title(box.x), (box.right, box.bottom + 38), cls="name", anchor="end"))
    return "".join(parts)


def x_labels(box: Box, *, grid: bool = False) -> str:
    """Ticks and labels under a chart; labels of choices are shortened to their width."""
    labels = box.x.labels()
    letters = max(4, int(box.width / max(1, len(labels)) / 8))
    parts = []
    for share, label in labels:
        x = box.left + share * box.width
        parts.append(line((x, box.top if grid else box.bottom), (x, box.bottom + 4), cls="grid" if grid else "rule"))
        parts.append(text(shorten(label, letters), (x, box.bottom + 18), cls="tick", anchor="middle"))
    return "".join(parts)


def shorten(label: str, letters: int) -> str:
    """A label cut to a number of letters."""
    return label if len(label) <= letters else label[: max(1, letters - 1)] + "…"


def _axis_title(axis: Axis) -> str:
    return f"{axis.title}, {axis.hint}" if axis.hint and axis.title else axis.title


def _pad(low: float, high: float, pad: float) -> tuple[float, float]:
    extra = (high - low) * pad if high > low else abs(low) * 0.1 or 0.5
    return low - extra, high + extra


def _pad_log(low: float, high: float, pad: float) -> tuple[float, float]:
    factor = (high / low) ** pad if high > low else 2.0
    return low / factor, high * factor


def _ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten between the ends, about `count` of them."""
    step = round_step((high - low) / count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded, so that 3 x 0.1 is labelled 0.3.
    return tuple(round(number * step, 12) if step > 1e-9 else number * step for number in range(first, last + 1))


def _log_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Powers of ten, with 2 and 5 times them where there are few; over less than a decade, as on a linear axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for units in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [unit * 10.0**power for power in powers for unit in units]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= min(3, count):
            return tuple(inside[:: -(-len(inside) // (count + 2))])
    return _ticks(low, high, count)


def _choice_order(value: Any) -> tuple[bool, float, str]:
    return (False, float(value), "") if is_number(value) else (True, 0.0, str(value))
