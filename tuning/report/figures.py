"""The charts of a study, in sections as a report shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tuning.report import phrases
from tuning.report.charts import cost, history, parameters, schedules
from tuning.report.charts.history import LearningCurve, ScoredTrial, SeedSpread
from tuning.report.charts.parameters import Parameter, TriedConfiguration
from tuning.report.charts.schedules import ValueChange, ValueSchedule
from tuning.report.report_data import MAX_DRAWN, ReportData
from tuning.report.sample_sheets import Sheet, Sheets
from tuning.report.trial_table import Table
from tuning.study.budget import hours, unit_of
from tuning.study.outcome import Configuration, Outcome
from tuning.values import sentence

MAX_KEYS = 8  # upright axes: more do not fit next to each other
MAX_SLICES = 6
MAX_BARS = 12
MAX_POINTS = 150  # of a curve


class Chart(NamedTuple):
    """A chart with its title and note."""

    title: str
    svg: Markup
    note: str = ""
    wide: bool = False
    scrolls: bool = False  # on a narrow screen, rather than shrinks
    legend: tuple[tuple[str, str], ...] = ()  # class of a colour, and its label


class ReportSection(NamedTuple):
    """Charts that answer one question."""

    id: str
    title: str
    short: str  # in the navigation
    charts: tuple[Chart, ...]
    note: str = ""
    doubt: str = ""
    kind: str = ""
    sheets: tuple[Sheet, ...] = ()
    table: Table | None = None
    missing: str = ""  # why there is less than there could be

    @property
    def has_content(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.charts or self.sheets or self.table or self.missing)


def strip(data: ReportData) -> Markup | str:
    """All scores on one line; "" where there are none."""
    # Failed trials have no score here, whatever they had reached: they cannot be trained again.
    trials = [ScoredTrial(data.mark(each), data.score(each)) for each in data.compared]
    if not any(each.score is not None for each in trials):
        return ""
    winner, default = data.study.winner, data.study.default
    if winner and default and winner.name == default.name:
        default = None  # one bracket for both
    spreads = [_seed_spread(default, "baseline", "default"), _seed_spread(winner, "best", "best")]
    return Markup(history.strip(trials, [each for each in spreads if each is not None], score=data.axis))


def progress_section(data: ReportData) -> ReportSection:
    """Scores in the order of the trials, and learning curves."""
    # The baseline alone has a curve, but no history of a search.
    has_scores = any(data.score(each) is not None for each in data.started)
    has_curves = any(each.score is not None for each in data.compared)
    charts = (*([_history(data)] if has_scores else []), *([_curves(data)] if has_curves else []))
    return ReportSection("course", "How the search went", "Progress", charts)


def key_sections(data: ReportData) -> list[ReportSection]:
    """Importance and all trials at once, then scores along single keys."""
    scored = [each for each in data.started if data.score(each) is not None]
    if not data.varied or not scored:
        return []
    shown = [_parameter(data, key) for key in data.varied[:MAX_KEYS]]
    bars = [_importance(data)] if any(data.importance.shares.values()) else []
    pairs = [_pair(data, shown[0], shown[1])] if len(shown) > 1 else []
    slices = [_slice(data, parameter, index, shown) for index, parameter in enumerate(shown[:MAX_SLICES])]
    # The pair comes first after the bars: two keys are what a reader can still see at once.
    charts = (*bars, *pairs, _parallel(data, shown))
    doubt = sentence(data.importance.doubt) if bars else ""
    note = "Scores along one key each; a dashed line is the value of the baseline, an arrow a score beyond the axis."
    return [
        ReportSection("keys", "Which keys matter", "Keys", charts, doubt=doubt),
        ReportSection("slices", "Key by key", "Key by key", tuple(slices), note, kind="slices"),
    ]


def population_section(data: ReportData) -> ReportSection:
    """How population based training changed the values; empty for other schedulers."""
    changed = [each for each in data.drawn if each.trial.history]
    keys = list(dict.fromkeys(key for each in changed for step in each.trial.history for key in step["words"]))
    keys = [key for key in keys if key in data.varied][:MAX_KEYS]  # a chart of a constant says nothing
    if not changed:
        return ReportSection("population", "How the population changed", "Population", ())
    epochs = max(data.study.search.epochs, *(each.epochs for each in data.drawn))
    charts = [_lineage(data, keys[0] if keys else "", epochs), *(_schedule(data, key, epochs) for key in keys)]
    note = "Trials at the bottom of the population continued from copies of better ones, with changed values."
    return ReportSection("population", "How the population changed", "Population", tuple(charts), note, kind="slices")


def tradeoff_section(data: ReportData) -> ReportSection:
    """Scores against speed and size, where these were measured."""
    charts = [_tradeoff(data, name) for name in data.costs]
    note = "The line is the Pareto front: the trials that no other beats in score and cost at once." if charts else ""
    return ReportSection("tradeoffs", "Accuracy against cost", "Trade-off", tuple(charts), note)


def cost_section(data: ReportData) -> ReportSection:
    """Parts of the budget, and when each slot was busy."""
    ran = any(each.busy_seconds for each in data.study.trials)
    charts = (_budget_shares(data), _timeline(data)) if ran else ()
    return ReportSection("cost", "Cost of the search", "Cost", charts)


def sample_section(samples: Sheets) -> ReportSection:
    """The predictions of the best configurations."""
    note = "The same four validation frames through each network, on one scale in metres. Switch to compare."
    missing = f"Some images could not be made: {samples.missing}" if samples.missing else ""
    note = note if samples.sheets else ""
    return ReportSection("pictures", "Predictions", "Predictions", (), note, sheets=samples.sheets, missing=missing)


def published_section(table: Table | None) -> ReportSection:
    """Our scores next to published ones."""
    note = "Published scores and ours differ in frames and length of training: compare which configuration is better "
    note += "than which rather than the numbers."
    return ReportSection("published", "Published scores", "Published", (), note, table=table)


def _seed_spread(configuration: Configuration | None, label: str, role: str) -> SeedSpread | None:
    if configuration is None or configuration.mean is None:
        return None
    mean, spread = configuration.mean, configuration.spread
    return SeedSpread(f"{label} {phrases.score(mean, spread)}", mean, spread, role)


def _history(data: ReportData) -> Chart:
    default = data.study.default.mean if data.study.default else None
    feasible = data.study.is_feasible
    trials = [ScoredTrial(data.mark(each), data.score(each), feasible(each)) for each in data.started]
    lost = sum(each.score is None for each in trials)
    clamped = sum(each.score is not None and data.axis.clamps(each.score) for each in trials)
    note = "The orange line is the best so far, the dashed one the baseline."
    note += " An arrow is a score beyond the end of the axis." if clamped else ""
    note += f" At the top: {phrases.plural(lost, 'trial')} without a score." if lost else ""
    svg = history.history(trials, score=data.axis, default=default)
    return Chart("Trial by trial", Markup(svg), note)


def _curves(data: ReportData) -> Chart:
    lines = [LearningCurve(data.mark(each), _thin_points(each)) for each in [*data.drawn, *data.own_default]]
    svg = history.curves(lines, metric=data.metric_title, higher=data.higher, epochs=data.study.search.epochs)
    some = f" {len(data.drawn)} of {len(data.started)} are drawn." if len(data.started) > MAX_DRAWN else ""
    stopped = sum(each.trial.state == "stopped" for each in data.started)
    note = f"A bar ends those that were stopped early ({stopped})." if stopped else "None was stopped early."
    return Chart("Epoch by epoch", Markup(svg), f"{note} Orange: the best; dashed: the baseline.{some}")


def _thin_points(each: Outcome) -> tuple[tuple[int, float], ...]:
    """The epochs with a score; of very many an even choice that includes the last."""
    points = [(epoch, value) for epoch, value in each.scores if value is not None]
    step = -(-len(points) // MAX_POINTS) or 1
    return tuple(points[::-1][::step][::-1])


def _parameter(data: ReportData, key: str) -> Parameter:
    """A key with its axis: over the searched range and every value that was tried."""
    dimension = next((each for each in data.study.dimensions if each.key == key), None)  # None: a list of points
    tried = data.values(data.started, key)
    ends = [dimension.low, dimension.high] if dimension and dimension.kind != "choice" else []
    kind, order = (dimension.kind, dimension.values) if dimension else ("", ())
    return Parameter(key, parameters.axis_of([*tried, *ends], kind=kind, order=order), data.study.base.get(key))


def _tried(data: ReportData, keys: Sequence[Parameter]) -> list[TriedConfiguration]:
    return [
        TriedConfiguration(data.mark(each), tuple(data.study.value(each, key.key) for key in keys), data.score(each))
        for each in data.drawn
    ]


def _parallel(data: ReportData, keys: Sequence[Parameter]) -> Chart:
    svg = parameters.parallel(keys, _tried(data, keys), score=data.axis)
    note = "A line a trial, stronger the better, the best in orange, failed ones in red. Draw along an axis to keep "
    note += "only the trials in that range, on the whole page; Escape shows all again."
    return Chart("All at once", Markup(svg), note, wide=True, scrolls=True)


def _importance(data: ReportData) -> Chart:
    result = data.importance
    shares = {key: result.shares[key] for key in data.varied[:MAX_BARS] if key in result.shares}
    svg = parameters.importance(shares, doubtful=bool(result.doubt))
    note = f"{result.method}, from {phrases.plural(result.trials, 'finished trial')}."
    return Chart("Importance of each key", Markup(svg), note)


def _pair(data: ReportData, one: Parameter, other: Parameter) -> Chart:
    svg = parameters.pair(one, other, _tried(data, (one, other)))
    note = "The two most important keys; stronger is better, red crosses failed, dashed is the baseline."
    return Chart("Where the good ones are", Markup(svg), note)


def _slice(data: ReportData, parameter: Parameter, index: int, keys: Sequence[Parameter]) -> Chart:
    return Chart("", Markup(parameters.slice_chart(parameter, index, _tried(data, keys), score=data.axis)))


def _lineage(data: ReportData, key: str, epochs: int) -> Chart:
    # By rank, so that copies point upwards where population based training works.
    order = sorted(data.drawn, key=lambda each: data.ranks.get(each.name, len(data.ranks) + 1))
    trials = [schedule_of(data, each, key) for each in order]
    note = "A row a trial, the best at the top; an arrow leads from the trial whose weights were copied to the one "
    note += "that continued from them. The orange line is the lineage of the best trial's weights."
    return Chart("Who copied whom", Markup(schedules.lineage(trials, epochs=epochs)), note, wide=True, scrolls=True)


def _schedule(data: ReportData, key: str, epochs: int) -> Chart:
    trials = [schedule_of(data, each, key) for each in data.drawn]
    values = [change.value for each in trials for change in each.changes if change.value is not None]
    kind = next((each.kind for each in data.study.dimensions if each.key == key), "")
    axis = parameters.axis_of(values, kind=kind)
    return Chart("", Markup(schedules.schedule(key, trials, axis=axis, epochs=epochs)))


def schedule_of(data: ReportData, each: Outcome, key: str) -> ValueSchedule:
    """The values of a key in a trial over its epochs, from the one it started with."""
    value: Any = each.trial.words.get(key, data.study.base.get(key))
    changes = [ValueChange(0, value)]
    for step in each.trial.history:
        value = step["words"].get(key, value)
        # A change is recorded with the first epoch that was trained with it.
        changes.append(ValueChange(max(0, int(step["epoch"]) - 1), value, str(step.get("from", ""))))
    return ValueSchedule(data.mark(each), tuple(changes), max(each.epochs, changes[-1].epoch))


def _tradeoff(data: ReportData, name: str) -> Chart:
    measured = [(each, data.score(each), getattr(each.trial, name)) for each in data.compared]
    points = [
        cost.CostPoint(data.mark(each), float(value), score)
        for each, score, value in measured
        if score is not None and value is not None
    ]
    costs = [each.cost for each in points]
    # Architectures differ in size by factors, repeated measurements of one by a few percent.
    log = bool(costs) and min(costs) > 0 and max(costs) > 5 * min(costs)
    title = phrases.NAMES[name]
    svg = cost.tradeoff(points, cost=title, metric=data.metric_title, higher=data.higher, log=log)
    return Chart(f"{data.metric_name} against {title}", Markup(svg))


def _budget_shares(data: ReportData) -> Chart:
    unit, sums = unit_of(data.study.search), dict.fromkeys(_HOUR_KINDS, 0.0)
    for each in data.study.trials:
        sums[_hour_kind(each)] += hours(each, unit)
    parts = [cost.BudgetShare(label, sums[kind], kind) for kind, label in _HOUR_KINDS.items()]
    legend = tuple((part.kind, f"{phrases.hours(part.amount)} {part.label}") for part in parts if part.amount)
    svg = cost.shares(parts, unit=f"{unit}-hours")
    title = f"Where {phrases.hours(sum(sums.values()))} {unit}-hours went"
    return Chart(title, Markup(svg), wide=True, legend=legend)


_HOUR_KINDS = {
    "done": "on trials that ran to their end",
    "stopped": "on trials stopped early",
    "again": "on other seeds and the baseline",
    "running": "on trials that are running",
    "wasted": "on trials that failed or have no score",
}


def _hour_kind(each: Outcome) -> str:
    if each.lost:  # before the state: a trial of NaN scores is done, too
        return "wasted"
    if each.trial.state in ("running", "waiting"):
        return "running"
    return each.trial.state if each.trial.kind == "search" else "again"


def _timeline(data: ReportData) -> Chart:
    ran = [each for each in data.study.trials if each.trial.started]
    latest = max((max(each.trial.ended, each.trial.started + each.busy_seconds) for each in ran), default=0.0)
    # Slots are derived from the times: the records have the node of a trial, but no slot.
    spans = [cost.TrialSpan(data.mark(each), each.trial.started, _end(each, latest)) for each in ran]
    available = len(cost.slots(spans)) * (latest - min((each.start for each in spans), default=latest))
    share = sum(each.end - each.start for each in spans) / available if available > 0 else 1.0
    note = "A bar a trial, a row for each that ran at the same time; hollow ones were stopped early, red ones failed. "
    note += f"The rows were busy {share:.0%} of the time."
    return Chart("When each trial ran", Markup(cost.timeline(spans)), note, wide=True, scrolls=True)


def _end(each: Outcome, latest: float) -> float:
    """The time a trial ended; of a running one, that of the last record of the search."""
    return max(each.trial.started, each.trial.ended if each.ended and each.trial.ended else latest)
