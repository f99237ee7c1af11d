"""Charts of scores: all of them on one line, over the course of the search, and over the epochs of each trial."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from tuning.report.charts import axes
from tuning.report.charts.axes import Axis, Box
from tuning.report.charts.marks import (
    Mark,
    Point,
    dot,
    element,
    format_coordinate,
    line,
    path,
    shape,
    steps,
    svg,
    text,
    trial,
)

WIDTH, HEIGHT = 560, 340
LEFT, TOP, RIGHT, FOOT = 64, 44, 18, 50


class ScoredTrial(NamedTuple):
    """A trial with its score, None where it has none."""

    mark: Mark
    score: float | None


class LearningCurve(NamedTuple):
    """A trial with its score after each epoch, gaps left out."""

    mark: Mark
    points: tuple[tuple[int, float], ...]


class SeedSpread(NamedTuple):
    """A configuration's mean score and how far other seeds are from it, None where there is one seed."""

    label: str  # with its numbers
    mean: float
    spread: float | None
    role: str  # best or default


def strip(trials: Sequence[ScoredTrial], spreads: Sequence[SeedSpread], *, score: Axis) -> str:
    """Every score on one line, close ones stacked; above them mean and spread of the best and the default."""
    known = [each for each in trials if each.score is not None]
    far = [each for each in known if score.beyond(each.score or 0.0)]
    near = [each for each in known if each not in far]
    room = 78 if far else 0
    left = 16 + (room if _higher_is_better(score) else 0)
    box = Box(left, 76, WIDTH - 32 - room, 84, score, axes.axis([0, 1]))
    parts = [_strip_axis(box), *(_band(each, box, row) for row, each in enumerate(spreads))]
    radius = 5.0 if len(known) <= 60 else 3.5 if len(known) <= 200 else 2.5
    parts += [
        dot(each.mark, at, radius=radius) for each, at in zip(near, _stack_points(near, box, radius), strict=True)
    ]
    parts.append(_outliers(far, box, radius))
    return svg((WIDTH, 208), *parts, label=f"{score.title} of {len(known)} trials on one line", cls="strip")


def history(trials: Sequence[ScoredTrial], *, score: Axis, default: float | None = None) -> str:
    """Scores in the order the trials were started, and the best so far; those without a score stand at the top."""
    box = _box(axes.integer_axis(range(1, len(trials) + 1), title="trial, in the order they were started"), score)
    parts = [axes.draw(box), _default_line(box, default), _best_so_far(trials, box)]
    parts += [_score_point(each, place, box) for place, each in _last_on_top(trials)]
    return svg((WIDTH, HEIGHT), *parts, label=f"{score.title} of {len(trials)} trials in order, with the best so far")


def curves(lines: Sequence[LearningCurve], *, metric: str, higher: bool, epochs: int) -> str:
    """Scores by epoch, a line a trial; what the scheduler stopped ends in a bar, the best is drawn last."""
    values = [value for each in lines for _, value in each.points]
    most = max([epochs, *(epoch for each in lines for epoch, _ in each.points)])
    log = not higher and min(values, default=0.0) > 0  # errors fall fast, then slowly
    y = axes.score_axis(values, higher=higher, title=metric, log=log)
    box = _box(axes.integer_axis(range(1, most + 1), title="epoch"), y)
    drawn = sorted(lines, key=lambda each: (bool(each.mark.role), -(each.mark.shade or 0), each.mark.role == "best"))
    inner = element("svg", *(_curve(each, box) for each in drawn if each.points), **_window(box))
    return svg((WIDTH, HEIGHT), axes.draw(box), inner, label=f"{metric} by epoch of {len(lines)} trials")


def sparkline(points: Sequence[tuple[int, float]], *, epochs: int, low: float, high: float) -> str:
    """A curve without axes, on the scale of all the trials."""
    width, height = 84, 22
    span = (high - low) or 1.0
    places = [
        (
            2 + (epoch - 1) / max(1, epochs - 1) * (width - 4),
            2 + (1 - min(max((value - low) / span, 0), 1)) * (height - 4),
        )
        for epoch, value in points
    ]
    end = element("circle", cx=places[-1][0], cy=places[-1][1], r=2, cls="m") if places else ""
    return svg((width, height), path(places, cls="s"), end, label="score by epoch", cls="spark")


def score_mark(mark: Mark, at: Point, *, score: float, axis: Axis, radius: float = 5.0) -> str:
    """A trial as a point, or where its score is beyond the end of the axis as an arrow that way."""
    if not axis.beyond(score):
        return dot(mark, at, radius=radius)
    x, y = at
    tip = -7 if score > axis.high else 7
    arrow = element("path", d=f"M{x - 5:.1f} {y - tip / 2:.1f}h10l-5 {tip}z", cls="m")
    return trial(mark, arrow)


def _box(x: Axis, y: Axis) -> Box:
    return Box(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - FOOT, x, y)


def _window(box: Box) -> dict[str, float | str]:
    """What makes an inner svg show the inside of a box only."""
    size = {"x": box.left, "y": box.top, "width": box.width + RIGHT, "height": box.height}
    return {**size, "viewBox": " ".join(format_coordinate(value) for value in size.values())}


def _higher_is_better(score: Axis) -> bool:
    return score.hint.startswith("higher")


def _ends(each: SeedSpread) -> tuple[float, ...]:
    spread = each.spread or 0.0
    return each.mean - spread, each.mean + spread


def _strip_axis(box: Box) -> str:
    parts = [line((box.left, box.bottom), (box.right, box.bottom), cls="rule")]
    for share, label in box.x.words():
        x = box.left + share * box.width
        parts += [line((x, box.bottom), (x, box.bottom + 4), cls="rule")]
        parts.append(text(label, (x, box.bottom + 18), cls="tick", anchor="middle"))
    hint = "better →" if box.x.hint.startswith("higher") else "← better"
    parts.append(text(f"{box.x.title}   {hint}", (box.left, box.bottom + 40), cls="name"))
    return "".join(parts)


def _band(each: SeedSpread, box: Box, row: int) -> str:
    """Mean and spread over the seeds as a bracket with its words."""
    y = 24 + 30 * row
    low, high = (box.left + box.x.share(end) * box.width for end in _ends(each))
    middle = (low + high) / 2
    right = middle < box.left + box.width / 2
    place = (max(high, middle) + 12, y + 4) if right else (min(low, middle) - 12, y + 4)
    parts = [
        line((middle, y), (middle, box.bottom), cls="stem"),
        element("rect", x=low, y=y - 4, width=max(high - low, 1), height=8, rx=4, cls="band"),
        element("circle", cx=middle, cy=y, r=4.5, cls="m"),
        text(each.label, place, cls="label", anchor="start" if right else "end"),
    ]
    return element("g", *parts, cls=each.role)


def _stack_points(known: Sequence[ScoredTrial], box: Box, radius: float) -> list[Point]:
    """A place for each trial on the line, one above the other where they would overlap."""
    columns: dict[int, int] = {}
    places: dict[int, Point] = {}
    tallest = max(1, int(box.height / (2 * radius)))
    for place in sorted(range(len(known)), key=lambda place: known[place].score or 0.0):
        x = box.left + box.x.share(known[place].score) * box.width
        column = round(x / (2 * radius))
        level = columns.get(column, 0)
        columns[column] = level + 1
        places[place] = (x, box.bottom - radius - 1 - level % tallest * 2 * radius)
    return [places[place] for place in range(len(known))]


def _outliers(far: Sequence[ScoredTrial], box: Box, radius: float) -> str:
    """The trials beyond the end of the line, as a block beside it."""
    if not far:
        return ""
    sign, edge = (-1, box.left) if _higher_is_better(box.x) else (1, box.right)
    tallest = max(1, int((box.height - 12) / (2 * radius)))
    parts = []
    for place, each in enumerate(far):
        column, level = divmod(place, tallest)
        at = (edge + sign * (18 + column * 2 * radius), box.bottom - radius - 1 - level * 2 * radius)
        parts.append(dot(each.mark, at, radius=radius))
    words = text(f"{len(far)} worse", (edge + sign * 12, box.bottom + 18), cls="tick", anchor="" if sign > 0 else "end")
    return "".join([*parts, words])


def _default_line(box: Box, default: float | None) -> str:
    """The default's score as a line across."""
    if default is None:
        return ""
    _, y = box.at(box.x.low, default)
    words = text("as given", (box.right, y - 6 if y - box.top > 24 else y + 16), cls="label", anchor="end")
    return element("g", line((box.left, y), (box.right, y), cls="level"), words, cls="default")


def _best_so_far(trials: Sequence[ScoredTrial], box: Box) -> str:
    scored = [(place, each.score) for place, each in enumerate(trials, 1) if each.score is not None]
    best = accumulate((score for _, score in scored), max if _higher_is_better(box.y) else min)
    points = [box.at(place, score) for (place, _), score in zip(scored, best, strict=True)]
    return steps([*points, (box.right, points[-1][1])], cls="front") if points else ""


def _score_point(each: ScoredTrial, place: int, box: Box) -> str:
    if each.score is None:
        x, _ = box.at(place, box.y.low)
        return dot(each.mark, (x, box.top - 5))
    return score_mark(each.mark, box.at(place, each.score), score=each.score, axis=box.y)


def _last_on_top(trials: Sequence[ScoredTrial]) -> list[tuple[int, ScoredTrial]]:
    return sorted(enumerate(trials, 1), key=lambda each: (bool(each[1].mark.role), each[1].mark.role == "best"))


def _curve(each: LearningCurve, box: Box) -> str:
    places = [box.far(epoch, value) for epoch, value in each.points]
    x, y = places[-1]
    ends = {
        "stopped": line((x, y - 6), (x, y + 6), cls="end"),
        "failed": shape(each.mark._replace(role=""), (x, y), radius=4),
    }
    end = ends.get(each.mark.state, element("circle", cx=x, cy=y, r=2.5, cls="m"))
    return trial(each.mark, path(places, cls="hit"), path(places, cls="s"), end, lines=True)
