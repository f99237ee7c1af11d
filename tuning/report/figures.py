"""A study's charts, in sections as a report shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tuning.report import phrases
from tuning.report.charts import cost, parameters, schedules
from tuning.report.charts import history as progress
from tuning.report.charts.history import LearningCurve, ScoredTrial, SeedSpread
from tuning.report.charts.parameters import Parameter, TriedConfiguration
from tuning.report.charts.schedules import ValueChange, ValueSchedule
from tuning.report.report_data import MAX_DRAWN, ReportData, values
from tuning.report.sample_sheets import Sheet, Sheets
from tuning.report.trial_table import Table
from tuning.study.budget import hours, unit_of
from tuning.study.outcome import Configuration, Outcome

TOP_KEYS = 8  # upright axes
SLICES = 6
POINTS = 150  # of a curve


class Chart(NamedTuple):
    """A chart with its words."""

    title: str
    svg: Markup
    note: str = ""
    wide: bool = False
    scrolls: bool = False  # on a narrow screen, rather than shrink
    legend: tuple[tuple[str, str], ...] = ()  # class of a colour, and what it stands for


class ReportSection(NamedTuple):
    """Charts that answer one question."""

    id: str
    title: str
    short: str  # for the list of parts
    charts: tuple[Chart, ...]
    note: str = ""
    doubt: str = ""
    kind: str = ""
    pictures: tuple[Sheet, ...] = ()
    table: Table | None = None
    missing: str = ""  # why there is less than there could be


def strip(view: ReportData) -> Markup | str:
    """All scores on one line; nothing where there is none."""
    trials = [ScoredTrial(view.mark(each), view.score(each)) for each in [*view.searched, *view.own_default]]
    if not any(each.score is not None for each in trials):
        return ""
    ends = [_spread(view.default, "as given", "default"), _spread(view.winner, "best", "best")]
    known = [each for each in ends if each is not None]
    if view.winner and view.default and view.winner.name == view.default.name:
        known = known[1:]
    return Markup(progress.strip(trials, known, score=view.axis))


def progress_section(view: ReportData) -> ReportSection:
    """How the search went: scores in order, and curves."""
    trials = [*view.searched, *view.own_default]
    history = [_history(view)] if any(view.score(each) is not None for each in view.searched) else []
    curves = [_curves(view)] if any(each.score is not None for each in trials) else []
    return ReportSection("course", "How the search went", "Course", (*history, *curves))


def key_sections(view: ReportData) -> list[ReportSection]:
    """What mattered: importance and all trials at once, then scores along single keys."""
    known = [each for each in view.searched if view.score(each) is not None]
    if not view.varied or not known:
        return []
    shared = [_parameter(view, key) for key in view.varied[:TOP_KEYS]]
    bars = [_importance(view)] if any(view.importance.shares.values()) else []
    pairs = [_pair(view, shared[0], shared[1])] if len(shared) > 1 else []
    slices = [_slice(view, parameter, place, shared) for place, parameter in enumerate(shared[:SLICES])]
    charts = (*bars, *pairs, _parallel(view, shared))
    first = ReportSection(
        "keys", "What mattered", "Keys", charts, doubt=_capital(view.importance.doubt) if bars else ""
    )
    note = "The score along one key each; a dashed line is the value the recipe had, an arrow a score beyond the axis."
    return [first, ReportSection("slices", "Key by key", "Key by key", tuple(slices), note, kind="slices")]


def population_section(view: ReportData) -> ReportSection:
    """How population based training moved the values; nothing where it did not."""
    moved = [each for each in view.drawn if each.trial.history]
    keys = list(dict.fromkeys(key for each in moved for step in each.trial.history for key in step["words"]))
    keys = [key for key in keys if key in view.varied][:TOP_KEYS]
    if not moved:
        return ReportSection("population", "How the population moved", "Population", ())
    epochs = max(view.study.search.epochs, *(each.epochs for each in view.drawn))
    charts = [_lineage(view, keys[0] if keys else "", epochs), *(_schedule(view, key, epochs) for key in keys)]
    note = "Trials at the bottom of the population went on from copies of better ones, with changed values."
    return ReportSection("population", "How the population moved", "Population", tuple(charts), note, kind="slices")


def tradeoff_section(view: ReportData) -> ReportSection:
    """Scores against speed and size, where these were measured."""
    charts = [_tradeoff(view, name) for name in view.costs]
    note = "The line joins the trials that no other beats in score and cost at once." if charts else ""
    return ReportSection("tradeoffs", "Accuracy against cost", "Trade-off", tuple(charts), note)


def cost_section(view: ReportData) -> ReportSection:
    """What it cost: parts of the budget, and when each slot was busy."""
    if not any(each.busy_seconds for each in view.study.trials):
        return ReportSection("cost", "What it cost", "Cost", ())
    return ReportSection("cost", "What it cost", "Cost", (_budget_shares(view), _timeline(view)))


def sample_section(pictures: Sheets) -> ReportSection:
    """What the best configurations predict."""
    note = "The same four validation frames through each network, on one scale in metres. Switch to and fro to compare."
    note = note if pictures.found else ""
    missing = f"Not all pictures could be made: {pictures.missing}" if pictures.missing else ""
    return ReportSection(
        "pictures", "What it looks like", "Pictures", (), note, pictures=pictures.found, missing=missing
    )


def published_section(table: Table | None) -> ReportSection:
    """Ours beside published scores."""
    note = "Published figures and ours differ in frames and length of training: compare the order, which "
    note += "configuration is better than which, rather than the numbers."
    return ReportSection("published", "Beside the published scores", "Published", (), note, table=table)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] + "." * bool(text)


def _spread(found: Configuration | None, label: str, role: str) -> SeedSpread | None:
    if found is None or found.mean is None:
        return None
    return SeedSpread(f"{label} {phrases.score(found.mean, found.spread)}", found.mean, found.spread, role)


def _history(view: ReportData) -> Chart:
    default = view.default.mean if view.default else None
    trials = [ScoredTrial(view.mark(each), view.score(each)) for each in view.searched]
    lost = sum(each.score is None for each in trials)
    beyond = sum(each.score is not None and view.axis.beyond(each.score) for each in trials)
    note = "The orange line is the best so far, the dashed one the recipe as it was given."
    note += " An arrow is a score beyond the end of the axis." if beyond else ""
    note += f" {phrases.plural(lost, 'trial')} without a score: above." if lost else ""
    svg = progress.history(trials, score=view.axis, default=default)
    return Chart("Trial by trial", Markup(svg), note)


def _curves(view: ReportData) -> Chart:
    lines = [LearningCurve(view.mark(each), _thin_points(each)) for each in [*view.drawn, *view.own_default]]
    svg = progress.curves(lines, metric=view.named, higher=view.higher, epochs=view.study.search.epochs)
    some = f" {len(view.drawn)} of {len(view.searched)} are drawn." if len(view.searched) > MAX_DRAWN else ""
    stopped = sum(each.trial.state == "stopped" for each in view.searched)
    note = f"A bar ends those that were stopped early ({stopped})." if stopped else "None was stopped early."
    return Chart("Epoch by epoch", Markup(svg), f"{note} Orange: the best; dashed: the recipe as it was given.{some}")


def _thin_points(each: Outcome) -> tuple[tuple[int, float], ...]:
    """Epochs with a score, of very many an even choice with the last."""
    points = [(epoch, value) for epoch, value in each.scores if value is not None]
    step = -(-len(points) // POINTS) or 1
    return tuple(points[::-1][::step][::-1])


def _parameter(view: ReportData, key: str) -> Parameter:
    """A key with its axis: over the range that was searched and whatever was tried."""
    dimension = next((each for each in view.study.dimensions if each.key == key), None)
    tried = values(view, view.searched, key)
    ends = [dimension.low, dimension.high] if dimension and dimension.kind != "choice" else []
    kind, order = (dimension.kind, dimension.values) if dimension else ("", ())
    return Parameter(key, parameters.axis_of([*tried, *ends], kind=kind, order=order), view.study.base.get(key))


def _tried(view: ReportData, trials: Sequence[Outcome], keys: Sequence[Parameter]) -> list[TriedConfiguration]:
    return [
        TriedConfiguration(view.mark(each), tuple(view.study.value(each, key.key) for key in keys), view.score(each))
        for each in trials
    ]


def _parallel(view: ReportData, keys: Sequence[Parameter]) -> Chart:
    svg = parameters.parallel(keys, _tried(view, view.drawn, keys), score=view.axis)
    note = "A line a trial, stronger the better, the best in orange, failed ones in red. Draw along an axis to keep "
    note += "only the trials that pass there, on the whole page; Escape shows all again."
    return Chart("All at once", Markup(svg), note, wide=True, scrolls=True)


def _importance(view: ReportData) -> Chart:
    found = view.importance
    shares = {key: found.shares[key] for key in view.varied[:12] if key in found.shares}
    svg = parameters.importance(shares, doubtful=bool(found.doubt))
    note = f"{found.method}, from {phrases.plural(found.trials, 'finished trial')}."
    return Chart("How much each key counts", Markup(svg), note)


def _pair(view: ReportData, one: Parameter, other: Parameter) -> Chart:
    svg = parameters.pair(one, other, _tried(view, view.drawn, (one, other)))
    note = "The two keys that count most; stronger is better, red crosses failed, dashed is the recipe as it was given."
    return Chart("Where the good ones lie", Markup(svg), note)


def _slice(view: ReportData, parameter: Parameter, place: int, keys: Sequence[Parameter]) -> Chart:
    tried = _tried(view, view.drawn, keys)
    return Chart("", Markup(parameters.slice_chart(parameter, place, tried, score=view.axis)))


def _lineage(view: ReportData, key: str, epochs: int) -> Chart:
    order = sorted(view.drawn, key=lambda each: view.ranks.get(each.name, len(view.ranks) + 1))
    trials = [schedule_of(view, each, key) for each in order]
    note = (
        "A row a trial, the best at the top; an arrow leads from the trial whose weights were copied to the one that "
    )
    note += "went on from them. The orange way is that of the best one's weights."
    return Chart("Who copied whom", Markup(schedules.lineage(trials, epochs=epochs)), note, wide=True, scrolls=True)


def _schedule(view: ReportData, key: str, epochs: int) -> Chart:
    trials = [schedule_of(view, each, key) for each in view.drawn]
    moved = [change.value for each in trials for change in each.changes]
    kind = next((each.kind for each in view.study.dimensions if each.key == key), "")
    axis = parameters.axis_of([value for value in moved if value is not None], kind=kind)
    return Chart("", Markup(schedules.schedule(key, trials, axis=axis, epochs=epochs)))


def schedule_of(view: ReportData, each: Outcome, key: str) -> ValueSchedule:
    """How a trial's value of a key moved, from the words it began with."""
    value: Any = each.trial.words.get(key, view.study.base.get(key))
    changes = [ValueChange(0, value)]
    for step in each.trial.history:
        value = step["words"].get(key, value)
        # A change is told with the first epoch that was trained with it.
        changes.append(ValueChange(max(0, int(step["epoch"]) - 1), value, str(step.get("from", ""))))
    return ValueSchedule(view.mark(each), tuple(changes), max(each.epochs, changes[-1].epoch))


def _tradeoff(view: ReportData, name: str) -> Chart:
    known = [
        (each, view.score(each), getattr(each.trial, name))
        for each in [*view.searched, *view.own_default]
        if getattr(each.trial, name) is not None
    ]
    priced = [cost.CostPoint(view.mark(each), float(price), score) for each, score, price in known if score is not None]
    prices = [each.cost for each in priced]
    log = bool(prices) and min(prices) > 0 and max(prices) > 5 * min(prices)
    title = phrases.NAMES[name]
    svg = cost.tradeoff(priced, cost=title, metric=view.named, higher=view.higher, log=log)
    return Chart(f"{phrases.NAMES.get(view.metric, view.metric)} against {title}", Markup(svg))


def _budget_shares(view: ReportData) -> Chart:
    unit, sums = unit_of(view.study.search), dict.fromkeys(_HOUR_KINDS, 0.0)
    for each in view.study.trials:
        sums[_hour_kind(each)] += hours(each, unit)
    parts = [cost.BudgetShare(label, sums[kind], kind) for kind, label in _HOUR_KINDS.items()]
    legend = tuple((part.kind, f"{phrases.hours(part.amount)} {part.label}") for part in parts if part.amount)
    svg = cost.shares(parts, unit=f"{unit}-hours")
    return Chart(f"Where {phrases.hours(sum(sums.values()))} {unit}-hours went", Markup(svg), wide=True, legend=legend)


_HOUR_KINDS = {
    "done": "on trials that ran to their end",
    "stopped": "on trials stopped early",
    "again": "on other seeds and the recipe as it was given",
    "running": "on trials that are running",
    "wasted": "on trials that failed or have no score",
}


def _hour_kind(each: Outcome) -> str:
    if each.lost:
        return "wasted"
    if each.trial.state in ("running", "waiting"):
        return "running"
    return each.trial.state if each.trial.kind == "search" else "again"


def _timeline(view: ReportData) -> Chart:
    ran = [each for each in view.study.trials if each.trial.started]
    latest = max((max(each.trial.ended, each.trial.started + each.busy_seconds) for each in ran), default=0.0)
    busy = [cost.TrialSpan(view.mark(each), each.trial.started, _end(each, latest)) for each in ran]
    rows = cost.slots(busy)
    whole = len(rows) * (latest - min((each.start for each in busy), default=latest))
    share = sum(each.end - each.start for each in busy) / whole if whole > 0 else 1.0
    note = "A bar a trial, a row for each that ran at the same time; hollow ones were stopped early, red ones failed. "
    note += f"The rows were busy {share:.0%} of the time."
    return Chart("When each trial ran", Markup(cost.timeline(busy)), note, wide=True, scrolls=True)


def _end(each: Outcome, latest: float) -> float:
    """When a trial ended; of one that runs, the last sign of life of the search."""
    return max(each.trial.started, each.trial.ended if each.ended and each.trial.ended else latest)
