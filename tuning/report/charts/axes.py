"""Axes: values -> places on a chart, with round ticks; linear, logarithmic or one place for each choice."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tuning.report.charts.marks import Point, line, text
from tuning.values import format_number, format_value, is_number

PAD = 0.06


class Axis(NamedTuple):
    """A range of values, or choices one beside the other."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False
    choices: tuple[str, ...] = ()
    title: str = ""
    hint: str = ""  # e.g. "lower is better"

    def share(self, value: Any) -> float:
        """Where a value lies, 0 at the low end to 1 at the high end; what is beyond an end is put at it."""
        return min(max(self.far(value), 0.0), 1.0)

    def far(self, value: Any) -> float:
        """Where a value lies, below 0 or above 1 if it is beyond an end."""
        if self.choices:
            return (self.choices.index(format_value(value)) + 0.5) / len(self.choices)
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, float(value)))
        return (at - low) / (high - low)

    def holds(self, value: Any) -> bool:
        """Whether a value has a place of its own here."""
        if self.choices:
            return format_value(value) in self.choices
        return is_number(value) and (not self.log or value > 0)

    def beyond(self, value: float) -> bool:
        """Whether a value is drawn at an end that is not its own."""
        return not self.choices and not self.low <= value <= self.high

    def words(self) -> list[tuple[float, str]]:
        """Each tick as (share, label)."""
        if self.choices:
            return [((place + 0.5) / len(self.choices), choice) for place, choice in enumerate(self.choices)]
        return [(self.share(tick), format_number(tick, 3)) for tick in self.ticks]


class Box(NamedTuple):
    """The part of a chart that data are drawn in, with an axis to the right and one upwards."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def at(self, x: Any, y: Any) -> Point:
        """Where a pair of values lies."""
        return self.left + self.x.share(x) * self.width, self.top + (1 - self.y.share(y)) * self.height

    def far(self, x: Any, y: Any) -> Point:
        """Where a pair of values lies, outside the box if it is beyond an end."""
        return self.left + self.x.far(x) * self.width, self.top + (1 - self.y.far(y)) * self.height

    @property
    def bottom(self) -> float:
        """The y of the lower edge."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """The x of the right edge."""
        return self.left + self.width


def axis(values: Iterable[float], *, log: bool = False, count: int = 5, pad: float = PAD, title: str = "") -> Axis:
    """An axis around the finite values, a little beyond; around nothing, 0 to 1; around one value, some room."""
    found = [float(value) for value in values if is_number(value) and (not log or value > 0)]
    low, high = (min(found), max(found)) if found else (0.1, 1.0) if log else (0.0, 1.0)
    if log:
        low, high = _pad_log(low, high, pad)
        return Axis(low, high, _log_ticks(low, high, count), log=True, title=title)
    low, high = _pad(low, high, pad)
    return Axis(low, high, _ticks(low, high, count), title=title)


def integer_axis(values: Iterable[int], *, count: int = 6, title: str = "") -> Axis:
    """An axis of whole numbers, such as epochs, from the least to the greatest with half a step of room."""
    found = list(values)
    low, high = (min(found), max(found)) if found else (0, 1)
    ticks = tuple(tick for tick in _ticks(low, high, count) if tick == round(tick)) if high > low else (low,)
    return Axis(low - 0.5, high + 0.5, ticks, title=title)


def choice_axis(values: Iterable[Any], *, ordered: bool = False, title: str = "") -> Axis:
    """An axis with a place for each of the values, in their order if they have one, else sorted, numbers first."""
    distinct = {format_value(value): value for value in values}
    names = list(distinct) if ordered else sorted(distinct, key=lambda name: _choice_order(distinct[name]))
    return Axis(0, 1, (), choices=tuple(names or [""]), title=title)


def score_axis(values: Iterable[float | None], *, higher: bool, title: str = "", log: bool = False) -> Axis:
    """An axis of scores that bad ones do not stretch: those far behind the bulk are drawn at its end."""
    found = np.array([value for value in values if value is not None and math.isfinite(value)])
    if found.size:
        sign = -1.0 if higher else 1.0
        badness = found * sign
        limit = np.percentile(badness, 75) + 1.5 * (np.percentile(badness, 75) - badness.min())
        found = badness[badness <= max(limit, badness.min())] * sign
    return axis(found.tolist(), title=title, log=log)._replace(hint="higher is better" if higher else "lower is better")


def draw(box: Box, *, grid: bool = True) -> str:
    """The frame of a chart: grid, ticks, labels, and the titles of its axes."""
    parts = [line((box.left, box.bottom), (box.right, box.bottom), cls="rule")]
    for share, label in box.y.words():
        y = box.top + (1 - share) * box.height
        parts += [line((box.left, y), (box.right, y), cls="grid")] if grid else []
        parts.append(text(label, (box.left - 7, y + 4), cls="tick", anchor="end"))
    parts += _x_labels(box)
    parts.append(text(_axis_title(box.y), (4, box.top - 18), cls="name"))
    parts.append(text(_axis_title(box.x), (box.right, box.bottom + 38), cls="name", anchor="end"))
    return "".join(parts)


def _axis_title(axis: Axis) -> str:
    return f"{axis.title}, {axis.hint}" if axis.hint and axis.title else axis.title


def _x_labels(box: Box) -> list[str]:
    """Ticks and labels under a chart; labels of choices are cut to their place."""
    words = box.x.words()
    room = max(4, int(box.width / max(1, len(words)) / 8))
    parts = []
    for share, label in words:
        x = box.left + share * box.width
        parts.append(line((x, box.bottom), (x, box.bottom + 4), cls="rule"))
        parts.append(text(shorten(label, room), (x, box.bottom + 18), cls="tick", anchor="middle"))
    return parts


def shorten(label: str, room: int) -> str:
    """The beginning of a label that has no more than `room` letters."""
    return label if len(label) <= room else label[: max(1, room - 1)] + "…"


def _pad(low: float, high: float, pad: float) -> tuple[float, float]:
    extra = (high - low) * pad if high > low else abs(low) * 0.1 or 0.5
    return low - extra, high + extra


def _pad_log(low: float, high: float, pad: float) -> tuple[float, float]:
    factor = (high / low) ** pad if high > low else 2.0
    return low / factor, high * factor


def _ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten between the ends, about `count` of them."""
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * magnitude for unit in (1, 2, 5, 10) if unit * magnitude >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
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
