"""Charts of what was searched: how much each parameter counts, scores along each, and all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuning import values as tuning_values
from tuning.report.charts import axes
from tuning.report.charts.axes import Axis, Box, shorten
from tuning.report.charts.history import HEIGHT, LEFT, TOP, WIDTH, score_mark
from tuning.report.charts.marks import Mark, Point, dot, element, line, path, span, svg, text, trial

WIDE, TALL = 1140, 400
SLICE = (360, 250)


class Parameter(NamedTuple):
    """A searched key and the axis its values lie on."""

    key: str
    axis: Axis
    default: Any = None  # the recipe's own value


class TriedConfiguration(NamedTuple):
    """A trial with its values, in the order of the parameters, and its score."""

    mark: Mark
    values: tuple[Any, ...]
    score: float | None


def axis_of(values: Sequence[Any], *, kind: str = "", order: Sequence[Any] = ()) -> Axis:
    """The axis of a parameter's values: by its kind in the space, else by what they are."""
    numbers = [value for value in values if tuning_values.is_number(value)]
    if kind.startswith("log"):
        return axes.axis(numbers, log=True)
    if kind in ("uniform", "integer") or (not kind and len(numbers) == len(values) and len(set(numbers)) > 6):
        return axes.axis(numbers)
    return axes.choice_axis([*order, *values], ordered=bool(order))


def importance(shares: Mapping[str, float], *, doubtful: bool) -> str:
    """A bar for each key, longest first; pale where there are too few trials to tell."""
    rows = sorted(shares.items(), key=lambda each: -each[1])
    width, step = 560, 38
    most = max([share for _, share in rows if share > 0], default=1.0)
    parts = [_bar(key, share, place * step, most) for place, (key, share) in enumerate(rows)]
    return svg(
        (width, max(1, len(rows)) * step + 6),
        *parts,
        label="importance of parameters",
        cls="doubtful" if doubtful else "",
    )


def slice_chart(parameter: Parameter, place: int, tried: Sequence[TriedConfiguration], *, score: Axis) -> str:
    """Scores along one parameter; a dashed line is the value that the recipe had."""
    box = Box(58, 36, SLICE[0] - 58 - 14, SLICE[1] - 36 - 48, parameter.axis._replace(title=parameter.key), score)
    known = [each for each in _best_last(tried) if each.score is not None and box.x.holds(each.values[place])]
    parts = [axes.draw(box), _default_line(box, parameter.default)]
    parts += [
        score_mark(each.mark, _jittered_point(box, each, place, turn), score=each.score or 0.0, axis=score, radius=4.5)
        for turn, each in enumerate(known)
    ]
    return svg(SLICE, *parts, label=f"score by {parameter.key}", cls="small")


def pair(one: Parameter, other: Parameter, tried: Sequence[TriedConfiguration]) -> str:
    """The first two values of each trial against each other; its colour is its score."""
    box = Box(
        LEFT, TOP, WIDTH - LEFT - 18, HEIGHT - TOP - 50, *(each.axis._replace(title=each.key) for each in (one, other))
    )
    known = [each for each in _best_last(tried) if box.x.holds(each.values[0]) and box.y.holds(each.values[1])]
    parts = [axes.draw(box), _default_line(box, one.default)]
    if other.default is not None and box.y.holds(other.default) and not box.y.beyond(other.default):
        y = box.top + (1 - box.y.share(other.default)) * box.height
        parts.append(element("g", line((box.left, y), (box.right, y), cls="level"), cls="default"))
    for turn, each in enumerate(known):
        x, y = box.at(*each.values[:2])
        parts.append(
            dot(
                each.mark,
                (x + _jitter(box.x, turn) * box.width, y + _jitter(box.y, turn * 5 + 2) * box.height),
                radius=6,
            )
        )
    return svg((WIDTH, HEIGHT), *parts, label=f"{len(known)} trials by {one.key} and {other.key}")


def parallel(parameters: Sequence[Parameter], tried: Sequence[TriedConfiguration], *, score: Axis) -> str:
    """A line for each trial through its value of each parameter to its score; the best on top."""
    columns = [*(each.axis for each in parameters), score]
    xs = [70 + place * (WIDE - 140) / max(1, len(columns) - 1) for place in range(len(columns))]
    keys = [*(each.key for each in parameters), f"{score.hint}.{score.title}"]
    parts = [_trial_line(each, columns, xs) for each in _best_last(tried)]
    parts += [
        _upright_axis(column, x, key, place)
        for place, (x, column, key) in enumerate(zip(xs, columns, keys, strict=True))
    ]
    return svg((WIDE, TALL), *parts, label=f"{len(tried)} trials over {len(parameters)} parameters", cls="parallel")


_TOP, _BOTTOM = 58, TALL - 44


def _bar(key: str, share: float, y: float, most: float) -> str:
    length = max(0.0, share) / most * 488
    section, _, name = key.rpartition(".")
    spans = [span(f"{section}.", cls="faint")] if section else []
    head = element("text", *spans, span(name), x=2, y=y + 15, cls="label")
    bar = element("rect", x=2, y=y + 21, width=max(length, 2), height=10, rx=3, cls="share")
    return element("g", head, bar, text(f"{share:.0%}", (length + 10, y + 31), cls="tick"))


def _best_last(tried: Sequence[TriedConfiguration]) -> list[TriedConfiguration]:
    return sorted(tried, key=lambda each: (bool(each.mark.role), -(each.mark.shade or 0), each.mark.role == "best"))


def _jitter(axis: Axis, turn: int) -> float:
    """A little to the side among choices, so that equal ones are told apart; as a share of the axis."""
    return (turn * 0.618 % 1 - 0.5) * 0.45 / len(axis.choices) if axis.choices else 0.0


def _default_line(box: Box, default: Any) -> str:
    if default is None or not box.x.holds(default) or (not box.x.choices and box.x.beyond(default)):
        return ""
    x = box.left + box.x.share(default) * box.width
    return element("g", line((x, box.top), (x, box.bottom), cls="level"), cls="default")


def _jittered_point(box: Box, each: TriedConfiguration, place: int, turn: int) -> Point:
    """Where a trial lies along one parameter."""
    share = box.x.share(each.values[place]) + _jitter(box.x, turn)
    return box.left + share * box.width, box.top + (1 - box.y.share(each.score)) * box.height


def _height(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)


def _trial_line(each: TriedConfiguration, columns: Sequence[Axis], xs: Sequence[float]) -> str:
    """The line of a trial, its heights in data-at to choose it by; without a score it ends under the last axis."""
    places = list(zip(columns, each.values, strict=False))
    points = [
        (x, _height(axis.share(value))) for x, (axis, value) in zip(xs, places, strict=False) if axis.holds(value)
    ]
    points.append((xs[-1], _height(columns[-1].share(each.score)) if each.score is not None else _BOTTOM + 20))
    heights = [f"{_height(axis.share(value)):.1f}" if axis.holds(value) else "" for axis, value in places]
    heights.append("" if each.score is None else f"{points[-1][1]:.1f}")
    return trial(each.mark, path(points, cls="hit"), path(points, cls="s"), lines=True, data_at=" ".join(heights))


def _upright_axis(axis: Axis, x: float, key: str, place: int) -> str:
    """An axis upright, its ticks beside it, its name above: the section faint over the key."""
    section, _, name = key.rpartition(".")
    parts = [line((x, _TOP), (x, _BOTTOM), cls="pole")]
    for share, label in axis.words():
        y = _height(share)
        parts.append(line((x - 4, y), (x, y), cls="pole"))
        parts.append(text(shorten(label, 14), (x + 6, y + 4), cls="tick halo"))
    parts.append(text(section, (x, 18), cls="tick", anchor="middle"))
    parts.append(text(shorten(name, 20), (x, 36), cls="name", anchor="middle"))
    handle = element("rect", x=x - 16, y=_TOP - 6, width=32, height=_BOTTOM - _TOP + 12, cls="brush")
    return element("g", *parts, handle, cls="pole", data_axis=str(place))
