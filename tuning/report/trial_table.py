"""A study's tables: every trial in a row, and published scores beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from depthray.config.metric_names import rank_key
from depthray.config.sections import Recipe
from tuning import values as tuning_values
from tuning.report import phrases
from tuning.report.charts import axes, history
from tuning.report.charts.axes import Axis
from tuning.report.report_data import ReportData
from tuning.space import space as spaces
from tuning.study.budget import hours, unit_of
from tuning.study.outcome import Outcome
from tuning.values import canonical, finite_or_none, format_number, format_value

MOST_KEYS = 16  # columns


class Cell(NamedTuple):
    """What a cell shows, and what it is sorted by."""

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


def columns(view: ReportData) -> list[Column]:
    """The heads of the table of trials."""
    unit, short = unit_of(view.study.search), _short_names(keys_shown(view))
    head = [
        Column("#", "place among the searched trials", sorted="ascending"),
        Column("trial"),
        Column("state"),
        Column(view.named, f"best over its epochs; {phrases.direction(view.metric)}"),
        Column("curve", "score by epoch", kind=""),
    ]
    keys = [Column(short[key], f"{key}: {meaning(key)}".rstrip(": ")) for key in keys_shown(view)]
    costs = [Column(phrases.NAMES[name]) for name in view.costs]
    spent = [Column("time", "that its resources were taken"), Column(f"{unit}-hours")]
    return [*head, *keys, *costs, Column("best epoch"), Column("epochs"), *spent]


def rows(view: ReportData) -> list[TrialRow]:
    """Every trial, the ranked ones first, then those that run, then those without a score."""
    ends = [value for each in view.study.trials for _, value in each.scores if value is not None]
    limit = axes.score_axis(ends, higher=view.higher)
    small = {each.name for each in view.searched} - {each.name for each in view.drawn}
    return [
        _row(view, each, None if each.name in small else limit)
        for each in sorted(view.study.trials, key=lambda each: _order(view, each))
    ]


def states(view: ReportData) -> list[tuple[str, int]]:
    """How many trials are in each state, all of them first."""
    found = [each.trial.state for each in view.study.trials]
    names = [name for name in ("done", "stopped", "failed", "running", "waiting") if name in found]
    return [("all", len(found)), *((name, found.count(name)) for name in names)]


def keys_shown(view: ReportData) -> list[str]:
    """The keys that have a column: those that varied."""
    return view.varied[:MOST_KEYS]


def meaning(key: str) -> str:
    """What the recipe says of a key; nothing of options of an architecture."""
    section, _, name = key.partition(".")
    fields = Recipe.model_fields
    if not name:
        return (fields[key].description or "") if key in fields else ""
    inner = getattr(fields[section].annotation, "model_fields", {}) if section in fields else {}
    return (inner[name].description or "") if name in inner else ""


def published(view: ReportData) -> Table | None:
    """Ours beside the figures that the points of the space carry as `reference`; None where they carry none."""
    space = spaces.parse(dict(view.study.search.space), where="the space of the search")
    pairs = [(point, said) for point, said in zip(space.points, space.notes, strict=False) if said.get("reference")]
    metrics = list(dict.fromkeys(name for _, said in pairs for name in said["reference"]))
    if not pairs:
        return None
    ours = [_trial_of_point(view, point) for point, _ in pairs]
    head = ["configuration", "trial"]
    found: list[list[str]] = [[each.name if each else "not run"] for each in ours]
    for metric in metrics:
        told = [finite_or_none(said["reference"].get(metric)) for _, said in pairs]
        own = [_score_at_best(each, metric) if each else None for each in ours]
        places = (_ranks_of(told, metric), _ranks_of(own, metric))
        head += [f"{phrases.NAMES.get(metric, metric)}, published", "its place", "ours", "its place"]
        for line, one, other, place, mine in zip(found, told, own, *places, strict=True):
            line += [phrases.score(one), place, phrases.score(other), mine]
    lines = [
        TableLine(each.name if each else "", str(said.get("name") or _format_point(point)), tuple(cells))
        for (point, said), each, cells in zip(pairs, ours, found, strict=True)
    ]
    return Table(tuple(head), tuple(lines))


def _order(view: ReportData, each: Outcome) -> tuple[Any, ...]:
    known = view.ranks.get(each.name)
    states = ("running", "done", "stopped", "waiting", "failed")
    return known is None, known or 0, each.trial.kind == "search", states.index(each.trial.state), each.name


def _row(view: ReportData, each: Outcome, limit: Axis | None) -> TrialRow:
    trial = each.trial
    return TrialRow(
        trial=each.name,
        rank=view.ranks.get(each.name),
        kind={"default": "as given"}.get(trial.kind, ""),
        state=trial.state,
        role=view.role(each),
        score=Cell(phrases.score(each.score), "" if each.score is None else repr(each.score)),
        curve=Markup(_spark(view, each, limit) if limit else ""),
        cells=tuple(_cells(view, each)),
        error=trial.error,
    )


def _spark(view: ReportData, each: Outcome, limit: Axis) -> str:
    points = [(epoch, value) for epoch, value in each.scores if value is not None]
    if len(points) < 2:
        return ""
    return history.sparkline(points, epochs=view.study.search.epochs, low=limit.low, high=limit.high)


def _cells(view: ReportData, each: Outcome) -> list[Cell]:
    trial, unit = each.trial, unit_of(view.study.search)
    spent = hours(each, unit)
    asked = view.study.search.epochs
    return [
        *(_value_cell(view, each, key) for key in keys_shown(view)),
        *(_cost_cell(getattr(trial, name)) for name in view.costs),
        _number_cell(each.best_epoch),
        Cell(f"{each.epochs} / {asked}", str(each.epochs)),
        Cell(phrases.duration(each.busy_seconds), f"{each.busy_seconds:.0f}"),
        Cell(phrases.hours(spent), f"{spent:.6g}"),
    ]


def _value_cell(view: ReportData, each: Outcome, key: str) -> Cell:
    value = view.study.value(each, key)
    changed = canonical(value) != canonical(view.study.base.get(key))
    raw = repr(float(value)) if tuning_values.is_number(value) else format_value(value)
    return Cell(format_value(value), raw, "changed" if changed else "")


def _cost_cell(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(phrases.count(value), repr(float(value)))


def _number_cell(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(format_number(value), repr(value))


def _short_names(keys: list[str]) -> dict[str, str]:
    """Keys without their section, where that leaves no two alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def _trial_of_point(view: ReportData, point: Mapping[str, Any]) -> Outcome | None:
    """The searched trial of a point."""
    wanted = {key: canonical(value) for key, value in point.items()}
    same = [
        each for each in view.searched if {key: canonical(value) for key, value in each.trial.words.items()} == wanted
    ]
    return next(iter(same), None)


def _score_at_best(each: Outcome, metric: str) -> float | None:
    """Another score of a trial at its best epoch."""
    return next((finite_or_none(told.get(metric)) for told in each.curve if told["epoch"] == each.best_epoch), None)


def _ranks_of(values: list[float | None], metric: str) -> list[str]:
    """The place of each value among them, 1 for the best."""
    worth = [None if value is None else rank_key(metric, value) for value in values]
    known = sorted(value for value in worth if value is not None)
    return ["–" if value is None else str(known.index(value) + 1) for value in worth]


def _format_point(point: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={format_value(value)}" for key, value in point.items())
