"""Charts of the searched keys: the importance of each, scores along each, and all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuning.report.charts import axes
from tuning.report.charts.axes import HEIGHT, SMALL_HEIGHT, SMALL_WIDTH, WIDE, WIDTH, Axis, Box, score_point, shorten
from tuning.report.charts.marks import Mark, Point, dot, element, line, path, span, svg, text, trial
from tuning.values import is_number

PARALLEL_HEIGHT = 400
_TOP, _BOTTOM = 58, PARALLEL_HEIGHT - 44
FEW_NUMBERS = 6  # different numbers up to which a key without a range is drawn as choices
GOLDEN_RATIO = 0.618  # multiples of it, modulo 1, are spread evenly however many there are


class Parameter(NamedTuple):
    """A searched key and the axis of its values."""

    key: str
    axis: Axis
    default: Any = None  # the value of the baseline


class TriedConfiguration(NamedTuple):
    """A trial with its values, in the order of the parameters, and its score."""

    mark: Mark
    values: tuple[Any, ...]
    score: float | None


def axis_of(values: Sequence[Any], *, kind: str = "", order: Sequence[Any] = ()) -> Axis:
    """The axis of a parameter's values: by its kind in the space, otherwise by the values."""
    numbers = [value for value in values if is_number(value)]
    # Without a range (a list of points, or a key changed by hand) few numbers are choices, many are an axis.
    if kind.startswith("log"):
        return axes.axis(numbers, log=True)
    if kind in ("uniform", "integer") or (not kind and len(numbers) == len(values) and len(set(numbers)) > FEW_NUMBERS):
        return axes.axis(numbers)
    return axes.choice_axis([*order, *values], ordered=bool(order))


def importance(shares: Mapping[str, float], *, doubtful: bool) -> str:
    """A bar for each key, longest first; pale where there are too few trials to tell."""
    rows = sorted(shares.items(), key=lambda each: -each[1])
    row_height = 38
    # Relative to the largest, so that the order shows even where all shares are small.
    largest = max([share for _, share in rows if share > 0], default=1.0)
    parts = [_bar(key, share, index * row_height, largest) for index, (key, share) in enumerate(rows)]
    size = (WIDTH, max(1, len(rows)) * row_height + 6)
    return svg(size, *parts, label="importance of parameters", cls="doubtful" if doubtful else "")


def slice_chart(parameter: Parameter, index: int, tried: Sequence[TriedConfiguration], *, score: Axis) -> str:
    """Scores along one parameter; a dashed line is the value of the baseline."""
    box = axes.small_box(parameter.axis._replace(title=parameter.key), score)
    known = [each for each in _best_last(tried) if each.score is not None and box.x.holds(each.values[index])]
    parts = [axes.draw(box), _default_line(box, parameter.default)]
    for turn, each in enumerate(known):
        x, y = box.at(each.values[index], each.score)
        at = (x + _jitter(box.x, turn) * box.width, y)
        parts.append(score_point(each.mark, at, score=each.score or 0.0, axis=score, radius=4.5))
    return svg((SMALL_WIDTH, SMALL_HEIGHT), *parts, label=f"score by {parameter.key}", cls="small")


def pair(one: Parameter, other: Parameter, tried: Sequence[TriedConfiguration]) -> str:
    """The first two values of each trial against each other; its colour is its score."""
    box = axes.chart_box(one.axis._replace(title=one.key), other.axis._replace(title=other.key))
    known = [each for each in _best_last(tried) if box.x.holds(each.values[0]) and box.y.holds(each.values[1])]
    parts = [axes.draw(box), _default_line(box, one.default)]
    if _is_inside(box.y, other.default):
        parts.append(axes.default_level(box, other.default))
    for turn, each in enumerate(known):
        x, y = box.at(*each.values[:2])
        # Another turn upwards, or points of two choices would be on a diagonal.
        at = (x + _jitter(box.x, turn) * box.width, y + _jitter(box.y, turn * 5 + 2) * box.height)
        parts.append(dot(each.mark, at, radius=6))
    return svg((WIDTH, HEIGHT), *parts, label=f"{len(known)} trials by {one.key} and {other.key}")


def parallel(parameters: Sequence[Parameter], tried: Sequence[TriedConfiguration], *, score: Axis) -> str:
    """Parallel coordinates: a line for each trial through its value of each parameter to its score, the best on top."""
    columns = [*(each.axis for each in parameters), score]
    xs = [70 + index * (WIDE - 140) / max(1, len(columns) - 1) for index in range(len(columns))]
    keys = [*(each.key for each in parameters), f"{score.hint}.{score.title}"]
    parts = [_trial_line(each, columns, xs) for each in _best_last(tried)]
    parts += [_upright_axis(*each, index) for index, each in enumerate(zip(columns, xs, keys, strict=True))]
    label = f"{len(tried)} trials over {len(parameters)} parameters"
    return svg((WIDE, PARALLEL_HEIGHT), *parts, label=label, cls="parallel")


def _bar(key: str, share: float, y: float, largest: float) -> str:
    length = max(0.0, share) / largest * 488
    section, _, name = key.rpartition(".")
    spans = [span(f"{section}.", cls="faint")] if section else []
    head = element("text", *spans, span(name), x=2, y=y + 15, cls="label")
    bar = element("rect", x=2, y=y + 21, width=max(length, 2), height=10, rx=3, cls="share")
    return element("g", head, bar, text(f"{share:.0%}", (length + 10, y + 31), cls="tick"))


def _best_last(tried: Sequence[TriedConfiguration]) -> list[TriedConfiguration]:
    return sorted(tried, key=lambda each: each.mark.draw_order)


def _jitter(axis: Axis, turn: int) -> float:
    """An offset among choices, so that equal ones do not cover each other; as a share of the axis."""
    return (turn * GOLDEN_RATIO % 1 - 0.5) * 0.45 / len(axis.choices) if axis.choices else 0.0


def _is_inside(axis: Axis, default: Any) -> bool:
    return default is not None and axis.holds(default) and not axis.clamps(default)


def _default_line(box: Box, default: Any) -> str:
    if not _is_inside(box.x, default):
        return ""
    x = box.x_at(default)
    return element("g", line((x, box.top), (x, box.bottom), cls="level"), cls="default")


def _height(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)


def _trial_line(each: TriedConfiguration, columns: Sequence[Axis], xs: Sequence[float]) -> str:
    """The line of a trial; without a score it ends under the last axis.

    Its heights are in data-at, by which the page filters the trials.
    """
    columns_and_values = list(zip(columns, each.values, strict=False))
    points: list[Point] = [
        (x, _height(axis.share(value)))
        for x, (axis, value) in zip(xs, columns_and_values, strict=False)
        if axis.holds(value)
    ]
    # Without a score it ends below the last axis, where brushing never keeps it.
    points.append((xs[-1], _height(columns[-1].share(each.score)) if each.score is not None else _BOTTOM + 20))
    heights = [f"{_height(axis.share(value)):.1f}" if axis.holds(value) else "" for axis, value in columns_and_values]
    heights.append("" if each.score is None else f"{points[-1][1]:.1f}")
    return trial(each.mark, path(points, cls="hit"), path(points, cls="s"), lines=True, data_at=" ".join(heights))


def _upright_axis(axis: Axis, x: float, key: str, index: int) -> str:
    """An axis upright with its ticks to the right; above it the section in a faint colour and the key."""
    section, _, name = key.rpartition(".")
    parts = [line((x, _TOP), (x, _BOTTOM), cls="pole")]
    for share, label in axis.labels():
        y = _height(share)
        parts.append(line((x - 4, y), (x, y), cls="pole"))
        parts.append(text(shorten(label, 14), (x + 6, y + 4), cls="tick halo"))
    parts.append(text(section, (x, 18), cls="tick", anchor="middle"))
    parts.append(text(shorten(name, 20), (x, 36), cls="name", anchor="middle"))
    # Wider than the axis itself, for fingers; page.js listens to it.
    handle = element("rect", x=x - 16, y=_TOP - 6, width=32, height=_BOTTOM - _TOP + 12, cls="brush")
    return element("g", *parts, handle, cls="pole", data_axis=str(index))
