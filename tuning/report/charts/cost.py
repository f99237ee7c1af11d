"""Charts of the cost of a search: when each slot was busy, where the hours went, and scores against speed and size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tuning.report.charts import axes
from tuning.report.charts.axes import HEIGHT, WIDE, WIDTH, Box
from tuning.report.charts.marks import Mark, dot, element, steps, svg, text, title, trial
from tuning.values import format_number

ROW = 22  # height of a slot
_UNITS = (("s", 1.0, 180.0), ("min", 60.0, 10800.0), ("h", 3600.0, float("inf")))  # name, seconds, used below


class TrialSpan(NamedTuple):
    """A trial from its start to its end, in seconds since 1970."""

    mark: Mark
    start: float
    end: float


class BudgetShare(NamedTuple):
    """A part of the hours of a search."""

    label: str
    amount: float
    kind: str  # class of its colour


class CostPoint(NamedTuple):
    """A trial with its score and its cost."""

    mark: Mark
    cost: float
    score: float


def slots(trials: Sequence[TrialSpan]) -> list[list[TrialSpan]]:
    """The trials one after the other in as few rows as possible."""
    rows: list[list[TrialSpan]] = []
    for each in sorted(trials, key=lambda each: (each.start, each.end)):
        # Half a second of overlap is clocks, not two trials at a time.
        row = next((row for row in rows if row[-1].end <= each.start + 0.5), None)
        if row is None:
            rows.append([each])
        else:
            row.append(each)
    return rows


def timeline(trials: Sequence[TrialSpan]) -> str:
    """A row a slot and a bar a trial over the time of the search: gaps are idle, long bars are stragglers."""
    rows = slots(trials)
    start = min((each.start for each in trials), default=0.0)
    seconds = max([each.end for each in trials], default=start) - start
    unit, factor, _ = next(each for each in _UNITS if seconds < each[2])
    scale = axes.axis([0, max(seconds, 1.0) / factor], count=8, pad=0.0, title=f"{unit} since the first trial started")
    height = ROW * max(1, len(rows))
    box = Box(64, 12, WIDE - 64 - 18, height, scale, axes.axis([0, 1]))
    name = text(scale.title, (box.right, box.bottom + 40), cls="name", anchor="end")
    parts = [axes.x_labels(box, grid=True), name, *(_slot_lane(box, row) for row in range(len(rows)))]
    for row, spans in enumerate(rows):
        parts += [_trial_bar(each, box, row, start=start, factor=factor) for each in spans]
    return svg((WIDE, height + 62), *parts, label=f"{len(trials)} trials on {len(rows)} slots", cls="timeline")


def shares(parts: Sequence[BudgetShare], *, unit: str) -> str:
    """One bar in parts."""
    total = sum(part.amount for part in parts if part.amount > 0) or 1.0
    x, drawn = 0.0, []
    for part in parts:
        width = max(part.amount, 0.0) / total * 2 * WIDTH
        tip = title(f"{part.label}: {format_number(part.amount, 3)} {unit} ({part.amount / total:.0%})")
        drawn.append(element("rect", tip, x=x, y=0, width=width, height=26, cls=f"part {part.kind}"))
        x += width
    return svg((2 * WIDTH, 26), *drawn, label="parts of the budget", cls="shares")


def tradeoff(trials: Sequence[CostPoint], *, cost: str, metric: str, higher: bool, log: bool) -> str:
    """Scores against a cost, with the Pareto front as a line."""
    x = axes.axis([each.cost for each in trials], log=log, title=cost)._replace(hint="lower is better")
    box = axes.chart_box(x, axes.score_axis([each.score for each in trials], higher=higher, title=metric))
    front = pareto_front(trials, higher=higher)
    points = [box.at(each.cost, each.score) for each in front]
    line = steps([*points, (box.right, points[-1][1])], cls="front") if points else ""
    drawn = sorted(trials, key=lambda each: (each in front, each.mark.draw_order))
    dots = [dot(each.mark, box.at(each.cost, each.score), radius=6 if each in front else 4.5) for each in drawn]
    return svg((WIDTH, HEIGHT), axes.draw(box), line, *dots, label=f"{metric} against {cost}")


def pareto_front(trials: Sequence[CostPoint], *, higher: bool) -> list[CostPoint]:
    """The trials that are better than all cheaper ones, the cheapest first."""
    front: list[CostPoint] = []
    # Of equal costs the better score first, so that only that one can be on the front.
    for each in sorted(trials, key=lambda each: (each.cost, -each.score if higher else each.score)):
        if not front or (each.score > front[-1].score if higher else each.score < front[-1].score):
            front.append(each)
    return front


def _slot_lane(box: Box, row: int) -> str:
    y = box.top + row * ROW
    lane = element("rect", x=box.left, y=y + 2, width=box.width, height=ROW - 4, cls="lane")
    return lane + text(f"slot {row + 1}", (box.left - 7, y + ROW / 2 + 4), cls="tick", anchor="end")


def _trial_bar(each: TrialSpan, box: Box, row: int, *, start: float, factor: float) -> str:
    """The bar of a trial, with its name where that fits."""
    left, right = (box.x_at((time - start) / factor) for time in (each.start, each.end))
    # One unit of space between neighbours; and short trials, such as failed ones, must stay visible.
    y, width = box.top + row * ROW, max(right - left - 1, 2.0)
    bar = element("rect", x=left, y=y + 2, width=width, height=ROW - 4, rx=3, cls="m")
    name = each.mark.trial
    fits = width > 8 * len(name) + 6
    label = text(name, (left + width / 2, y + ROW / 2 + 4), cls="tick on", anchor="middle") if fits else ""
    return trial(each.mark, bar, label)
