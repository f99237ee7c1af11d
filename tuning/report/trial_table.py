"""The tables of a report: every trial in a row, and our scores next to published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from depthray.config.metric_names import rank_key
from depthray.config.sections import Recipe
from tuning.report import phrases
from tuning.report.charts import axes, history
from tuning.report.charts.axes import Axis
from tuning.report.report_data import ReportData
from tuning.study.budget import hours, unit_of
from tuning.study.outcome import Outcome
from tuning.values import canonical, finite_or_none, format_number, format_value, is_number

MAX_KEYS = 16  # columns: beyond that nobody compares, and trials.csv has all


class Cell(NamedTuple):
    """The text of a cell, and the value it is sorted by."""

    text: str
    raw: str = ""
    kind: str = ""


class Column(NamedTuple):
    """The head of a column."""

    name: str
    title: str = ""
    kind: str = "sorts"
    sorted: str = ""


class TrialRow(NamedTuple):
    """A trial in the table."""

    trial: str
    rank: int | None
    kind: str
    state: str
    role: str
    score: Cell
    curve: Markup
    cells: tuple[Cell, ...]
    error: str


class TableLine(NamedTuple):
    """A line of a plain table."""

    trial: str
    name: str
    cells: tuple[str, ...]


class Table(NamedTuple):
    """A plain table."""

    head: tuple[str, ...]
    lines: tuple[TableLine, ...]


def columns(data: ReportData) -> list[Column]:
    """The heads of the table of trials."""
    unit, short = unit_of(data.study.search), _short_names(keys_shown(data))
    head = [
        Column("#", "rank among the searched trials", sorted="ascending"),
        Column("trial"),
        Column("state"),
        Column(data.metric_title, f"best over its epochs; {phrases.direction(data.study.metric)}"),
        Column("curve", "score by epoch", kind=""),
    ]
    keys = [Column(short[key], f"{key}: {meaning(key)}".rstrip(": ")) for key in keys_shown(data)]
    runtimes = sorted({each.trial.runtime for each in data.compared} - {""})
    about = {"latency_ms": f"of {', '.join(runtimes)}"} if runtimes else {}
    costs = [Column(phrases.NAMES[name], about.get(name, "")) for name in data.costs]
    spent = [Column("time", "for which it held its resources"), Column(f"{unit}-hours")]
    return [*head, *keys, *costs, Column("best epoch"), Column("epochs"), *spent]


def rows(data: ReportData) -> list[TrialRow]:
    """Every trial: first the ranked ones, then the running ones, then those without a score."""
    scores = [value for each in data.study.trials for _, value in each.scores if value is not None]
    axis = axes.score_axis(scores, higher=data.higher)  # one for all curves, so that they can be compared
    # A curve is an SVG of its own: thousands of them make the page slow.
    without_curve = {each.name for each in data.started} - {each.name for each in data.drawn}
    return [
        _row(data, each, None if each.name in without_curve else axis)
        for each in sorted(data.study.trials, key=lambda each: _order(data, each))
    ]


def states(data: ReportData) -> list[tuple[str, int]]:
    """The number of trials in each state, all of them first."""
    counted = [each.trial.state for each in data.study.trials]
    names = [name for name in ("done", "stopped", "failed", "running", "waiting") if name in counted]
    return [("all", len(counted)), *((name, counted.count(name)) for name in names)]


def keys_shown(data: ReportData) -> list[str]:
    """The keys that have a column: those that varied."""
    return data.varied[:MAX_KEYS]


def meaning(key: str) -> str:
    """The description of a key in the schema of recipes; "" for options of an architecture."""
    section, _, name = key.partition(".")
    fields = Recipe.model_fields
    if not name:
        return (fields[key].description or "") if key in fields else ""
    # Sections without fields of their own, such as model, take options that only an architecture describes.
    inner = getattr(fields[section].annotation, "model_fields", {}) if section in fields else {}
    return (inner[name].description or "") if name in inner else ""


def published(data: ReportData) -> Table | None:
    """Our scores next to those that the points of the space have as `reference`; None where they have none."""
    space = data.study.space
    pairs = [(point, note) for point, note in zip(space.points, space.notes, strict=False) if note.get("reference")]
    metrics = list(dict.fromkeys(name for _, note in pairs for name in note["reference"]))
    if not pairs:
        return None
    ours = [_trial_of_point(data, point) for point, _ in pairs]
    head = ["configuration", "trial"]
    lines: list[list[str]] = [[each.name if each else "not run"] for each in ours]
    # Ranks next to the scores: with other frames and epochs only the order can be compared.
    for metric in metrics:
        theirs = [finite_or_none(note["reference"].get(metric)) for _, note in pairs]
        own = [_score_at_best(each, metric) if each else None for each in ours]
        ranks = (_ranks_of(theirs, metric), _ranks_of(own, metric))
        head += [f"{phrases.NAMES.get(metric, metric)}, published", "its rank", "ours", "its rank"]
        for line, their_score, own_score, their_rank, own_rank in zip(lines, theirs, own, *ranks, strict=True):
            line += [phrases.score(their_score), their_rank, phrases.score(own_score), own_rank]
    named = [
        TableLine(each.name if each else "", str(note.get("name") or _format_point(point)), tuple(cells))
        for (point, note), each, cells in zip(pairs, ours, lines, strict=True)
    ]
    return Table(tuple(head), tuple(named))


def _order(data: ReportData, each: Outcome) -> tuple[Any, ...]:
    rank = data.ranks.get(each.name)
    # "done" without a rank are repeats, the baseline and trials without a finite score.
    states = ("running", "done", "stopped", "waiting", "failed")
    return rank is None, rank or 0, each.trial.kind == "search", states.index(each.trial.state), each.name


def _row(data: ReportData, each: Outcome, axis: Axis | None) -> TrialRow:
    trial = each.trial
    return TrialRow(
        trial=each.name,
        rank=data.ranks.get(each.name),
        kind={"default": "baseline"}.get(trial.kind, ""),
        state=trial.state,
        role=data.role(each),
        score=Cell(phrases.score(each.score), "" if each.score is None else repr(each.score)),
        curve=Markup(_sparkline(data, each, axis) if axis else ""),
        cells=tuple(_cells(data, each)),
        error=trial.error,
    )


def _sparkline(data: ReportData, each: Outcome, axis: Axis) -> str:
    points = [(epoch, value) for epoch, value in each.scores if value is not None]
    if len(points) < 2:
        return ""
    return history.sparkline(points, epochs=data.study.search.epochs, score=axis)


def _cells(data: ReportData, each: Outcome) -> list[Cell]:
    spent = hours(each, unit_of(data.study.search))
    return [
        *(_value_cell(data, each, key) for key in keys_shown(data)),
        *(_cost_cell(data, each, name) for name in data.costs),
        _number_cell(each.best_epoch),
        Cell(f"{each.epochs} / {data.study.search.epochs}", str(each.epochs)),
        Cell(phrases.duration(each.busy_seconds), f"{each.busy_seconds:.0f}"),
        Cell(phrases.hours(spent), f"{spent:.6g}"),
    ]


def _value_cell(data: ReportData, each: Outcome, key: str) -> Cell:
    value = data.study.value(each, key)
    changed = canonical(value) != canonical(data.study.base.get(key))
    # Sorted by the exact number, but shown short.
    raw = repr(float(value)) if is_number(value) else format_value(value)
    return Cell(format_value(value), raw, "changed" if changed else "")


def _cost_cell(data: ReportData, each: Outcome, name: str) -> Cell:
    value, limit = getattr(each.trial, name), data.study.search.constraints.get(name, math.inf)
    if value is None:
        return Cell("–")
    return Cell(phrases.format_count(value), repr(float(value)), "beyond" if value > limit else "")


def _number_cell(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(format_number(value), repr(value))


def _short_names(keys: list[str]) -> dict[str, str]:
    """Keys without their section, unless two would then be equal."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def _trial_of_point(data: ReportData, point: Mapping[str, Any]) -> Outcome | None:
    """The searched trial of a point."""
    wanted = _canonical_point(point)  # 1 in the YAML of a space may be 1.0 in trial.json
    return next((each for each in data.started if _canonical_point(each.trial.words) == wanted), None)


def _canonical_point(point: Mapping[str, Any]) -> dict[str, str]:
    return {key: canonical(value) for key, value in point.items()}


def _score_at_best(each: Outcome, metric: str) -> float | None:
    """Another metric of a trial at its best epoch."""
    return next((finite_or_none(epoch.get(metric)) for epoch in each.curve if epoch["epoch"] == each.best_epoch), None)


def _ranks_of(values: list[float | None], metric: str) -> list[str]:
    """The rank of each value among them, 1 for the best."""
    keys = [None if value is None else rank_key(metric, value) for value in values]
    known = sorted(key for key in keys if key is not None)
    return ["–" if key is None else str(known.index(key) + 1) for key in keys]


def _format_point(point: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={format_value(value)}" for key, value in point.items())
