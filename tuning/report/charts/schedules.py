"""Charts of population based training: how each parameter moved over the epochs, and who copied whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tuning.report.charts import axes
from tuning.report.charts.axes import Axis, Box
from tuning.report.charts.marks import Mark, element, line, path, polygon, steps, svg, text, trial
from tuning.report.charts.parameters import SLICE

WIDE, ROW = 1140, 26


class ValueChange(NamedTuple):
    """From the end of which epoch on a value held, and whose weights it was taken up with, if another's."""

    epoch: int
    value: Any
    copied: str = ""


class ValueSchedule(NamedTuple):
    """The values of a parameter in one trial, in order, and the epoch the trial came to."""

    mark: Mark
    changes: tuple[ValueChange, ...]
    until: int


def schedule(key: str, trials: Sequence[ValueSchedule], *, axis: Axis, epochs: int) -> str:
    """A parameter's value by epoch, a line a trial."""
    x = axes.axis([0, max([epochs, 1])], pad=0.0, title="epoch")
    box = Box(58, 36, SLICE[0] - 58 - 14, SLICE[1] - 36 - 48, x, axis._replace(title=key))
    drawn = sorted(trials, key=lambda each: (-(each.mark.shade or 0), each.mark.role == "best"))
    return svg(SLICE, axes.draw(box), *(_steps(each, box) for each in drawn), label=f"{key} by epoch", cls="small")


def lineage(trials: Sequence[ValueSchedule], *, epochs: int) -> str:
    """A row a trial over the epochs; an arrow leads from whose weights were copied to who took them.

    The way that the weights of the best one came is drawn over it all.
    """
    rows = {each.mark.trial: place for place, each in enumerate(trials)}
    x = axes.axis([0, max([epochs, 1])], pad=0.0, title="epoch")
    box = Box(64, 8, WIDE - 64 - 18, ROW * max(1, len(trials)), x, Axis(0, 1, ()))
    shifts = _shifts(trials)
    parts = [
        axes.draw(box),
        *(_trial_row(each, box, rows, shifts) for each in trials),
        _best_lineage(trials, box, rows, shifts),
    ]
    return svg((WIDE, box.height + 58), *parts, label=f"who copied whom among {len(trials)} trials", cls="lineage")


def _steps(each: ValueSchedule, box: Box) -> str:
    known = [change for change in each.changes if box.y.holds(change.value)]
    points = [box.at(change.epoch, change.value) for change in known]
    if points:
        points.append((box.at(each.until, known[-1].value)[0], points[-1][1]))
    return trial(each.mark, steps(points, cls="hit"), steps(points, cls="s"), lines=True)


def _copies(each: ValueSchedule) -> list[ValueChange]:
    return [change for change in each.changes if change.copied and change.copied != each.mark.trial]


def _shifts(trials: Sequence[ValueSchedule]) -> dict[tuple[str, int], float]:
    """How far the arrow of a trial and epoch is moved aside, so that those of one epoch do not cover each other."""
    epochs: dict[int, list[str]] = {}
    for each in trials:
        for change in _copies(each):
            epochs.setdefault(change.epoch, []).append(each.mark.trial)
    return {
        (name, epoch): (place - (len(names) - 1) / 2) * min(9.0, 60 / len(names))
        for epoch, names in epochs.items()
        for place, name in enumerate(names)
    }


def _trial_row(each: ValueSchedule, box: Box, rows: dict[str, int], shifts: dict[tuple[str, int], float]) -> str:
    """The row of a trial with the arrows that lead to it."""
    y = _row_y(box, rows[each.mark.trial])
    name = text(each.mark.trial, (box.left - 7, y + 4), cls="tick", anchor="end")
    life = line((box.left, y), (box.left + box.x.share(each.until) * box.width, y), cls="s")
    arrows = [
        _arrow(_epoch_x(box, change.epoch, shifts[each.mark.trial, change.epoch]), _row_y(box, rows[change.copied]), y)
        for change in _copies(each)
        if change.copied in rows
    ]
    return trial(each.mark, name, life, *arrows, lines=True)


def _best_lineage(
    trials: Sequence[ValueSchedule], box: Box, rows: dict[str, int], shifts: dict[tuple[str, int], float]
) -> str:
    """Backwards from the end of the best trial, over each copy to the trial it was taken from."""
    known = {each.mark.trial: each for each in trials}
    each = next((each for each in trials if each.mark.role == "best"), None)
    if each is None:
        return ""
    points = [(_epoch_x(box, each.until, 0.0), _row_y(box, rows[each.mark.trial]))]
    before = each.until + 1
    while copy := next((one for one in _copies(each)[::-1] if one.epoch < before and one.copied in rows), None):
        x = _epoch_x(box, copy.epoch, shifts[each.mark.trial, copy.epoch])
        points += [(x, points[-1][1]), (x, _row_y(box, rows[copy.copied]))]
        each, before = known[copy.copied], copy.epoch
    return path([*points, (box.left, points[-1][1])], cls="front")


def _row_y(box: Box, place: int) -> float:
    return box.top + (place + 0.5) * ROW


def _epoch_x(box: Box, epoch: int, shift: float) -> float:
    return box.left + box.x.share(epoch) * box.width + shift


def _arrow(x: float, start: float, end: float) -> str:
    tip = end + (7 if start > end else -7)
    head = polygon([(x, end), (x - 4, tip), (x + 4, tip)], cls="m")
    foot = element("circle", cx=x, cy=start, r=3, cls="m")
    return element("g", line((x, start), (x, end), cls="copied"), foot, head)
