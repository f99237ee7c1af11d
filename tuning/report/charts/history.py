"""Charts of scores: all of them on one line, over the course of the search, and over the epochs of each trial."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from tuning.report.charts import axes
from tuning.report.charts.axes import HEIGHT, RIGHT, WIDTH, Axis, Box, chart_box, score_point
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

LETTER = 6.5  # width of a letter of a label, at most


class ScoredTrial(NamedTuple):
    """A trial with its score, None where it has none."""

    mark: Mark
    score: float | None
    eligible: bool = True  # may be the best: within the constraints


class LearningCurve(NamedTuple):
    """A trial with its score after each epoch, gaps left out."""

    mark: Mark
    points: tuple[tuple[int, float], ...]


class SeedSpread(NamedTuple):
    """The mean score of a configuration and its spread over seeds, None for a single seed."""

    label: str  # with its numbers
    mean: float
    spread: float | None
    role: str  # best or default


def strip(trials: Sequence[ScoredTrial], spreads: Sequence[SeedSpread], *, score: Axis) -> str:
    """Every score on one line, close ones stacked; above them mean and spread of the best and the default."""
    known = [each for each in trials if each.score is not None]
    outliers = [each for each in known if score.clamps(each.score or 0.0)]
    near = [each for each in known if each not in outliers]
    margin = 78 if outliers else 0
    left = 16 + (margin if score.higher_is_better else 0)
    box = Box(left, 76, WIDTH - 32 - margin, 84, score, axes.axis([0, 1]))
    parts = [_strip_axis(box), *(_spread_bracket(each, box, row) for row, each in enumerate(spreads))]
    # Smaller with more trials, or the stacks would be higher than the chart.
    radius = 5.0 if len(known) <= 60 else 3.5 if len(known) <= 200 else 2.5
    parts += [
        dot(each.mark, at, radius=radius) for each, at in zip(near, _stack_points(near, box, radius), strict=True)
    ]
    parts.append(_outliers(outliers, box, radius))
    return svg((WIDTH, 208), *parts, label=f"{score.title} of {len(known)} trials on one line", cls="strip")


def history(trials: Sequence[ScoredTrial], *, score: Axis, default: float | None = None) -> str:
    """Scores in the order of their trials' start, and the best so far; trials without a score are at the top."""
    box = chart_box(axes.integer_axis(range(1, len(trials) + 1), title="trials in the order of their start"), score)
    level = "" if default is None else axes.default_level(box, default, "baseline")
    drawn = sorted(enumerate(trials, 1), key=lambda each: each[1].mark.draw_order)
    parts = [
        axes.draw(box),
        level,
        _best_so_far(trials, box),
        *(_draw_score(each, index, box) for index, each in drawn),
    ]
    return svg((WIDTH, HEIGHT), *parts, label=f"{score.title} of {len(trials)} trials in order, with the best so far")


def curves(lines: Sequence[LearningCurve], *, metric: str, higher: bool, epochs: int) -> str:
    """Scores by epoch, a line a trial; a bar ends those that the scheduler stopped, the best is on top."""
    values = [value for each in lines for _, value in each.points]
    last = max([epochs, *(epoch for each in lines for epoch, _ in each.points)])
    log = not higher and min(values, default=0.0) > 0  # errors fall fast, then slowly
    y = axes.score_axis(values, higher=higher, title=metric, log=log)
    box = chart_box(axes.integer_axis(range(1, last + 1), title="epoch"), y)
    drawn = sorted(lines, key=lambda each: each.mark.draw_order)
    inner = element("svg", *(_draw_curve(each, box) for each in drawn if each.points), **_window(box))
    return svg((WIDTH, HEIGHT), axes.draw(box), inner, label=f"{metric} by epoch of {len(lines)} trials")


def sparkline(points: Sequence[tuple[int, float]], *, epochs: int, score: Axis) -> str:
    """A curve without axes, on the scale of all the trials."""
    width, height = 84, 22
    box = Box(2, 2, width - 4, height - 4, Axis(1, max(epochs, 2), ()), score)
    corners = [box.at(epoch, value) for epoch, value in points]
    end = element("circle", cx=corners[-1][0], cy=corners[-1][1], r=2, cls="m") if corners else ""
    return svg((width, height), path(corners, cls="s"), end, label="score by epoch", cls="spark")


def _window(box: Box) -> dict[str, float | str]:
    """Attributes that make an inner svg show only the inside of a box: curves are not clamped but cut off there."""
    size = {"x": box.left, "y": box.top, "width": box.width + RIGHT, "height": box.height}
    return {**size, "viewBox": " ".join(format_coordinate(value) for value in size.values())}


def _strip_axis(box: Box) -> str:
    rule = line((box.left, box.bottom), (box.right, box.bottom), cls="rule")
    hint = "better →" if box.x.higher_is_better else "← better"
    name = text(f"{box.x.title}   {hint}", (box.left, box.bottom + 40), cls="name")
    return "".join([rule, axes.x_labels(box), name])


def _spread_bracket(each: SeedSpread, box: Box, row: int) -> str:
    """Mean and spread over the seeds as a bracket with its label."""
    y, spread = 24 + 30 * row, each.spread or 0.0
    low, high = box.x_at(each.mean - spread), box.x_at(each.mean + spread)
    center = (low + high) / 2
    parts = [
        line((center, y), (center, box.bottom), cls="stem"),
        element("rect", x=low, y=y - 4, width=max(high - low, 1), height=8, rx=4, cls="band"),
        element("circle", cx=center, cy=y, r=4.5, cls="m"),
        _bracket_label(each.label, low, high, y),
    ]
    return element("g", *parts, cls=each.role)


def _bracket_label(label: str, low: float, high: float, y: float) -> str:
    """The label of a bracket from low to high: on the side with more space, or above where it fits on neither."""
    width = LETTER * len(label) + 12
    if max(low, WIDTH - high) < width:
        center = min(max((low + high) / 2, width / 2), WIDTH - width / 2)
        return text(label, (center, y - 9), cls="label", anchor="middle")
    if WIDTH - high >= low:
        return text(label, (high + 12, y + 4), cls="label", anchor="start")
    return text(label, (low - 12, y + 4), cls="label", anchor="end")


def _stack_points(known: Sequence[ScoredTrial], box: Box, radius: float) -> list[Point]:
    """A point for each trial on the line, one above the other where they would overlap."""
    columns: dict[int, int] = {}
    points: dict[int, Point] = {}
    tallest = max(1, int(box.height / (2 * radius)))
    for index in sorted(range(len(known)), key=lambda index: known[index].score or 0.0):
        x = box.x_at(known[index].score)
        column = round(x / (2 * radius))
        level = columns.get(column, 0)
        columns[column] = level + 1
        # A stack that is full starts again from the line.
        points[index] = (x, box.bottom - radius - 1 - level % tallest * 2 * radius)
    return [points[index] for index in range(len(known))]


def _outliers(outliers: Sequence[ScoredTrial], box: Box, radius: float) -> str:
    """The trials beyond the end of the line, as a block next to it."""
    if not outliers:
        return ""
    sign, edge = (-1, box.left) if box.x.higher_is_better else (1, box.right)
    tallest = max(1, int((box.height - 12) / (2 * radius)))
    parts = []
    for index, each in enumerate(outliers):
        column, level = divmod(index, tallest)
        at = (edge + sign * (18 + column * 2 * radius), box.bottom - radius - 1 - level * 2 * radius)
        parts.append(dot(each.mark, at, radius=radius))
    anchor = "" if sign > 0 else "end"
    label = text(f"{len(outliers)} worse", (edge + sign * 12, box.bottom + 18), cls="tick", anchor=anchor)
    return "".join([*parts, label])


def _best_so_far(trials: Sequence[ScoredTrial], box: Box) -> str:
    eligible = [(index, each.score) for index, each in enumerate(trials, 1) if each.eligible]
    scored = [(index, score) for index, score in eligible if score is not None]
    best = accumulate((score for _, score in scored), max if box.y.higher_is_better else min)
    points = [box.at(index, score) for (index, _), score in zip(scored, best, strict=True)]
    return steps([*points, (box.right, points[-1][1])], cls="front") if points else ""


def _draw_score(each: ScoredTrial, index: int, box: Box) -> str:
    if each.score is None:
        return dot(each.mark, (box.x_at(index), box.top - 5))  # above the box, where no score can be
    return score_point(each.mark, box.at(index, each.score), score=each.score, axis=box.y)


def _draw_curve(each: LearningCurve, box: Box) -> str:
    corners = [box.unclamped(epoch, value) for epoch, value in each.points]
    x, y = corners[-1]
    ends = {
        "stopped": line((x, y - 6), (x, y + 6), cls="end"),
        # Without its role: a cross, even if the failed trial is the default.
        "failed": shape(each.mark._replace(role=""), (x, y), radius=4),
    }
    end = ends.get(each.mark.state, element("circle", cx=x, cy=y, r=2.5, cls="m"))
    # The path of class "hit" is wide and invisible: a thin line is hard to point at.
    return trial(each.mark, path(corners, cls="hit"), path(corners, cls="s"), end, lines=True)
