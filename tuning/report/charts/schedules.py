"""Charts of population based training: each parameter over the epochs, and who copied whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tuning.report.charts import axes
from tuning.report.charts.axes import SMALL_HEIGHT, SMALL_WIDTH, WIDE, Axis, Box
from tuning.report.charts.marks import Mark, element, line, path, polygon, steps, svg, text, trial

ROW = 26  # height of a trial


class ValueChange(NamedTuple):
    """The epoch after which a value was used, and the trial whose weights were copied with it, if any."""

    epoch: int
    value: Any
    copied: str = ""


class ValueSchedule(NamedTuple):
    """The values of a parameter in one trial, in order, and the last epoch of the trial."""

    mark: Mark
    changes: tuple[ValueChange, ...]
    until: int


def schedule(key: str, trials: Sequence[ValueSchedule], *, axis: Axis, epochs: int) -> str:
    """A parameter's value by epoch, a line a trial."""
    box = axes.small_box(axes.epoch_axis(epochs), axis._replace(title=key))
    lines = [_value_line(each, box) for each in sorted(trials, key=lambda each: each.mark.draw_order)]
    return svg((SMALL_WIDTH, SMALL_HEIGHT), axes.draw(box), *lines, label=f"{key} by epoch", cls="small")


def lineage(trials: Sequence[ValueSchedule], *, epochs: int) -> str:
    """A row a trial over the epochs; an arrow leads from the trial whose weights were copied to the one that took them.

    The lineage of the best trial's weights is drawn on top.
    """
    rows = {each.mark.trial: index for index, each in enumerate(trials)}
    box = Box(64, 8, WIDE - 64 - 18, ROW * max(1, len(trials)), axes.epoch_axis(epochs), Axis(0, 1, ()))
    shifts = _arrow_shifts(trials)  # once: the arrows and the lineage must meet
    best = _best_lineage(trials, box, rows, shifts)
    parts = [axes.draw(box), *(_trial_row(each, box, rows, shifts) for each in trials), best]
    return svg((WIDE, box.height + 58), *parts, label=f"who copied whom among {len(trials)} trials", cls="lineage")


def _value_line(each: ValueSchedule, box: Box) -> str:
    known = [change for change in each.changes if box.y.holds(change.value)]  # not None, which has no position
    points = [box.at(change.epoch, change.value) for change in known]
    if points:
        points.append((box.x_at(each.until), points[-1][1]))
    return trial(each.mark, steps(points, cls="hit"), steps(points, cls="s"), lines=True)


def _copies(each: ValueSchedule) -> list[ValueChange]:
    # A change that a trial made to its own values has no arrow.
    return [change for change in each.changes if change.copied and change.copied != each.mark.trial]


def _arrow_shifts(trials: Sequence[ValueSchedule]) -> dict[tuple[str, int], float]:
    """Offset of the arrow of a trial and epoch, so that the arrows of one epoch do not cover each other."""
    epochs: dict[int, list[str]] = {}
    for each in trials:
        for change in _copies(each):
            epochs.setdefault(change.epoch, []).append(each.mark.trial)
    return {
        (name, epoch): (index - (len(names) - 1) / 2) * min(9.0, 60 / len(names))
        for epoch, names in epochs.items()
        for index, name in enumerate(names)
    }


def _trial_row(each: ValueSchedule, box: Box, rows: dict[str, int], shifts: dict[tuple[str, int], float]) -> str:
    """The row of a trial with the arrows that lead to it."""
    y = _row_y(box, rows[each.mark.trial])
    name = text(each.mark.trial, (box.left - 7, y + 4), cls="tick", anchor="end")
    lifetime = line((box.left, y), (box.x_at(each.until), y), cls="s")
    arrows = [
        _arrow(box.x_at(change.epoch) + shifts[each.mark.trial, change.epoch], _row_y(box, rows[change.copied]), y)
        for change in _copies(each)
        if change.copied in rows  # of very many trials not all are drawn
    ]
    return trial(each.mark, name, lifetime, *arrows, lines=True)


def _best_lineage(
    trials: Sequence[ValueSchedule], box: Box, rows: dict[str, int], shifts: dict[tuple[str, int], float]
) -> str:
    """A line backwards from the end of the best trial, over each copy to the trial it was copied from."""
    known = {each.mark.trial: each for each in trials}
    each = next((each for each in trials if each.mark.role == "best"), None)
    if each is None:
        return ""
    points = [(box.x_at(each.until), _row_y(box, rows[each.mark.trial]))]
    before = each.until + 1
    # Strictly earlier copies only: trials that copied each other in one epoch would never end.
    while copy := next((one for one in _copies(each)[::-1] if one.epoch < before and one.copied in rows), None):
        x = box.x_at(copy.epoch) + shifts[each.mark.trial, copy.epoch]
        points += [(x, points[-1][1]), (x, _row_y(box, rows[copy.copied]))]
        each, before = known[copy.copied], copy.epoch
    return path([*points, (box.left, points[-1][1])], cls="front")


def _row_y(box: Box, row: int) -> float:
    return box.top + (row + 0.5) * ROW


def _arrow(x: float, start: float, end: float) -> str:
    tip = end + (7 if start > end else -7)
    head = polygon([(x, end), (x - 4, tip), (x + 4, tip)], cls="m")
    foot = element("circle", cx=x, cy=start, r=3, cls="m")
    return element("g", line((x, start), (x, end), cls="copied"), foot, head)
