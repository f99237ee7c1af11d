"""A study's tables: every trial in a row, and published scores beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from depthray.config.metric_names import rank_key
from depthray.config.sections import Recipe
from tuning.report import phrases
from tuning.report.charts import axes, history
from tuning.report.charts.axes import Axis, shown
from tuning.report.charts.marks import number
from tuning.report.report_data import View
from tuning.space import space as spaces
from tuning.study.budget import hours, unit_of
from tuning.study.importance import spelled
from tuning.study.outcome import Outcome, finite

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


class Row(NamedTuple):
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


class Line(NamedTuple):
    """A line of a plain table."""

    trial: str
    name: str
    cells: tuple[str, ...]


class Table(NamedTuple):
    """A plain table."""

    head: tuple[str, ...]
    lines: tuple[Line, ...]


def columns(view: View) -> list[Column]:
    """The heads of the table of trials."""
    unit, short = unit_of(view.study.search), _short_names(keys_shown(view))
    head = [
        Column("#", "place among the searched trials", sorted="ascending"),
        Column("trial"),
        Column("state"),
        Column(view.named, f"best over its epochs; {phrases.better(view.metric)}"),
        Column("curve", "score by epoch", kind=""),
    ]
    keys = [Column(short[key], f"{key}: {meaning(key)}".rstrip(": ")) for key in keys_shown(view)]
    costs = [Column(phrases.NAMES[name]) for name in view.costs]
    spent = [Column("time", "that its resources were taken"), Column(f"{unit}-hours")]
    return [*head, *keys, *costs, Column("best epoch"), Column("epochs"), *spent]


def rows(view: View) -> list[Row]:
    """Every trial, the ranked ones first, then those that run, then those without a score."""
    ends = [value for each in view.study.trials for _, value in each.scores if value is not None]
    limit = axes.scores(ends, higher=view.higher)
    small = {each.name for each in view.searched} - {each.name for each in view.drawn}
    return [
        _row(view, each, None if each.name in small else limit)
        for each in sorted(view.study.trials, key=lambda each: _order(view, each))
    ]


def states(view: View) -> list[tuple[str, int]]:
    """How many trials are in each state, all of them first."""
    found = [each.trial.state for each in view.study.trials]
    names = [name for name in ("done", "stopped", "failed", "running", "waiting") if name in found]
    return [("all", len(found)), *((name, found.count(name)) for name in names)]


def keys_shown(view: View) -> list[str]:
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


def published(view: View) -> Table | None:
    """Ours beside the figures that the points of the space carry as `reference`; None where they carry none."""
    space = spaces.parse(dict(view.study.search.space), where="the space of the search")
    pairs = [(point, said) for point, said in zip(space.points, space.remarks, strict=False) if said.get("reference")]
    metrics = list(dict.fromkeys(name for _, said in pairs for name in said["reference"]))
    if not pairs:
        return None
    ours = [_trial_of(view, point) for point, _ in pairs]
    head = ["configuration", "trial"]
    found: list[list[str]] = [[each.name if each else "not run"] for each in ours]
    for metric in metrics:
        told = [finite(said["reference"].get(metric)) for _, said in pairs]
        own = [_at_best(each, metric) if each else None for each in ours]
        places = (_places(told, metric), _places(own, metric))
        head += [f"{phrases.NAMES.get(metric, metric)}, published", "its place", "ours", "its place"]
        for line, one, other, place, mine in zip(found, told, own, *places, strict=True):
            line += [phrases.score(one), place, phrases.score(other), mine]
    lines = [
        Line(each.name if each else "", str(said.get("name") or _spelled(point)), tuple(cells))
        for (point, said), each, cells in zip(pairs, ours, found, strict=True)
    ]
    return Table(tuple(head), tuple(lines))


def _order(view: View, each: Outcome) -> tuple[Any, ...]:
    known = view.ranks.get(each.name)
    states = ("running", "done", "stopped", "waiting", "failed")
    return known is None, known or 0, each.trial.kind == "search", states.index(each.trial.state), each.name


def _row(view: View, each: Outcome, limit: Axis | None) -> Row:
    trial = each.trial
    return Row(
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


def _spark(view: View, each: Outcome, limit: Axis) -> str:
    points = [(epoch, value) for epoch, value in each.scores if value is not None]
    if len(points) < 2:
        return ""
    return history.sparkline(points, epochs=view.study.search.epochs, low=limit.low, high=limit.high)


def _cells(view: View, each: Outcome) -> list[Cell]:
    trial, unit = each.trial, unit_of(view.study.search)
    spent = hours(each, unit)
    asked = view.study.search.epochs
    return [
        *(_value(view, each, key) for key in keys_shown(view)),
        *(_cost(getattr(trial, name)) for name in view.costs),
        _number(each.best_epoch),
        Cell(f"{each.epochs} / {asked}", str(each.epochs)),
        Cell(phrases.span(each.busy_seconds), f"{each.busy_seconds:.0f}"),
        Cell(phrases.hours(spent), f"{spent:.6g}"),
    ]


def _value(view: View, each: Outcome, key: str) -> Cell:
    value = view.study.value(each, key)
    changed = spelled(value) != spelled(view.study.base.get(key))
    raw = repr(float(value)) if axes.is_number(value) else shown(value)
    return Cell(shown(value), raw, "changed" if changed else "")


def _cost(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(phrases.compact(value), repr(float(value)))


def _number(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(number(value), repr(value))


def _short_names(keys: list[str]) -> dict[str, str]:
    """Keys without their section, where that leaves no two alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def _trial_of(view: View, point: Mapping[str, Any]) -> Outcome | None:
    """The searched trial of a point."""
    wanted = {key: spelled(value) for key, value in point.items()}
    same = [
        each for each in view.searched if {key: spelled(value) for key, value in each.trial.words.items()} == wanted
    ]
    return next(iter(same), None)


def _at_best(each: Outcome, metric: str) -> float | None:
    """Another score of a trial at its best epoch."""
    return next((finite(told.get(metric)) for told in each.curve if told["epoch"] == each.best_epoch), None)


def _places(values: list[float | None], metric: str) -> list[str]:
    """The place of each value among them, 1 for the best."""
    worth = [None if value is None else rank_key(metric, value) for value in values]
    known = sorted(value for value in worth if value is not None)
    return ["–" if value is None else str(known.index(value) + 1) for value in worth]


def _spelled(point: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={shown(value)}" for key, value in point.items())
