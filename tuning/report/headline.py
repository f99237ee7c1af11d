"""The first screen of a report: the winner, its gain, how certain that is, and the cost so far."""

from __future__ import annotations

from typing import NamedTuple

from tuning.report import phrases
from tuning.report.report_data import ReportData
from tuning.report.trial_table import meaning
from tuning.study.outcome import Configuration
from tuning.study.study import Gain
from tuning.study.warnings import SearchWarning, warnings
from tuning.values import canonical, format_number, format_value, sentence

# After the last record of a search that has not ended. An epoch may take that long, a killed search looks the same.
SILENT_SECONDS = 900


class Sentence(NamedTuple):
    """A sentence and the class of its style."""

    text: str
    kind: str = ""


class Headline(NamedTuple):
    """The best score and what it means."""

    title: str
    metric: str
    value: str
    spread: str
    note: str  # what value and spread are
    sentences: tuple[Sentence, ...]


class KeyChange(NamedTuple):
    """A key that the best configuration changes."""

    key: str
    old: str
    new: str
    about: str


class Tile(NamedTuple):
    """A number with its name."""

    value: str
    label: str
    note: str = ""
    kind: str = ""


class SearchStatus(NamedTuple):
    """Whether the search runs."""

    kind: str
    text: str


class ReportWarning(NamedTuple):
    """A warning with its title."""

    kind: str
    head: str
    text: str


WARNING_TITLES = {
    "none": "No score",
    "infeasible": "Beyond a constraint",
    "failed": "Failed trials",
    "unfinite": "Non-finite scores",
    "edge": "Edge of the range",
    "unused": "Unknown effect",
    "budget": "Too few epochs?",
    "seeds": "Luck of the seed?",
    "default": "Gain",
    "population": "Changed in training",
}


def headline(data: ReportData) -> Headline:
    """The best configuration in numbers and sentences."""
    best = data.study.best
    if best is None or best.mean is None:
        yet = "" if data.study.search.ended else " yet"
        within = " within the constraints" if data.study.search.constraints else ""
        return Headline(f"No configuration{within} has a score{yet}", "", "", "", "", (_waiting_sentence(data),))
    note = f"mean of {len(best.seeds)} seeds ± their standard deviation" if len(best.seeds) > 1 else "one seed"
    spread = "" if best.spread is None else phrases.format_spread(best.mean, best.spread)
    title = f"Best {'configuration' if data.study.search.ended else 'so far'}: trial {best.name}"
    if data.study.keeps_baseline:
        title = f"Best {'of the search' if data.study.search.ended else 'so far'}: the recipe as it was given"
    return Headline(title, data.metric_title, phrases.score(best.mean), spread, note, tuple(_sentences(data, best)))


def status(data: ReportData, now: float) -> SearchStatus:
    """Whether the search has ended, runs, or was stopped or killed before its end."""
    search, budget = data.study.search, data.budget
    ended = sum(each.ended for each in data.study.trials)
    # A search that was resumed with lower --trials or --repeats has more trials than it plans now.
    progress = f"{ended} of {max(planned_trials(data), len(data.study.trials))} trials ended"
    if search.ended:
        when = phrases.date(search.ended)
        return SearchStatus("ended", f"ended {when}, after {phrases.duration(budget.wall_seconds)}")
    last = search.started + budget.wall_seconds
    if now - last > SILENT_SECONDS:
        return SearchStatus("left", f"not finished: {progress}, the last record is of {phrases.date(last)}")
    left = "" if budget.left_seconds is None else f", about {phrases.duration(budget.left_seconds)} left"
    return SearchStatus("running", f"running: {progress}{left}")


def planned_trials(data: ReportData) -> int:
    """The number of trials at the end: the searched ones, the baseline, and the repeats of both."""
    search = data.study.search
    return search.trials + search.top * search.repeats + (1 + search.repeats if search.repeats else 1)


def changes(data: ReportData) -> list[KeyChange]:
    """The keys in which the best configuration differs from the baseline."""
    if data.study.best is None:
        return []
    base = data.study.base
    return [
        KeyChange(key, format_value(base[key]) if key in base else "–", format_value(value), meaning(key))
        for key, value in data.study.best.outcome.overrides.items()
        if key != "seed" and canonical(value) != canonical(base.get(key))
    ]


def tiles(data: ReportData) -> list[Tile]:
    """The search in numbers."""
    budget, trials = data.budget, data.study.trials
    states = [each.trial.state for each in trials]
    parts = [f"{states.count(name)} {name}" for name in ("stopped", "running", "waiting") if name in states]
    wall = phrases.duration(budget.wall_seconds)
    shown = [
        Tile(str(len(trials)), "trials", ", ".join([f"{states.count('done')} to the end", *parts])),
        Tile(phrases.hours(budget.used), f"{budget.unit}-hours used", f"in {wall}"),
    ]
    # Tiles without a number would only fill space.
    if budget.saved_trials:
        shown.append(_saved_tile(data))
    if budget.wasted_trials:
        lost = phrases.plural(budget.wasted_trials, "trial") + " failed or without a score"
        shown.append(Tile(phrases.hours(budget.wasted), f"{budget.unit}-hours wasted", lost, "bad"))
    if budget.left_seconds is not None and not data.study.search.ended:
        amount = f"{phrases.hours(budget.left)} {budget.unit}-hours" if budget.left is not None else ""
        shown.append(Tile(phrases.duration(budget.left_seconds), "left, about", amount))
    return shown


def report_warnings(data: ReportData) -> list[ReportWarning]:
    """The warnings about the result, those of unused keys as one."""
    shown = warnings(data.study)
    # A space of many keys and few trials has many of them: one line says the same.
    unused = [each.key for each in shown if each.kind == "unused"]
    if len(unused) > 1:
        text = f"{phrases.join_names(unused)} had the same value in all finished trials: their effect is unknown"
        shown = [*(each for each in shown if each.kind != "unused"), SearchWarning("unused", text)]
    return [ReportWarning(each.kind, WARNING_TITLES[each.kind], sentence(each.text)) for each in shown]


def _waiting_sentence(data: ReportData) -> Sentence:
    trials, ended = data.study.trials, sum(each.ended for each in data.study.trials)
    if not trials:
        return Sentence("No trial has started.")
    count = f"{phrases.plural(ended, 'trial')} of {len(trials)} ended"
    return Sentence(f"{count}, none with a finite {data.study.metric}.")


def _sentences(data: ReportData, best: Configuration) -> list[Sentence]:
    study = data.study
    sentences = [Sentence(phrases.meaning(study.metric, best.mean or 0.0))]
    gain, median = study.gain(), study.gain_over_median()
    if gain is not None and study.keeps_baseline and study.winner is not None:
        sentences += [_describe_certainty(gain), Sentence(_describe_loser(data, study.winner), "gain")]
    elif gain is not None:
        sentences += [Sentence(_describe_gain(data, gain), "gain"), _describe_certainty(gain)]
    elif study.default is not None and best.name == study.default.name:
        sentences.append(Sentence("That is the baseline recipe: no searched configuration is better.", "gain"))
    else:
        sentences.append(Sentence("The baseline recipe has no score to compare with."))
    # The gain over the median shows what the search does for someone who would have picked any configuration.
    if median is not None and median.relative is not None and not study.keeps_baseline:
        compared = phrases.describe_gain(study.metric, median.relative)
        sentences.append(Sentence(f"Compared with the median trial: {compared}."))
    return [each for each in sentences if each.text]


def _describe_loser(data: ReportData, winner: Configuration) -> str:
    """The best searched configuration against the baseline, which is better."""
    gain = data.study.gain()
    name = f"The best searched configuration, trial {winner.name} ({phrases.score(winner.mean, winner.spread)}),"
    if gain is None or gain.relative is None or not gain.absolute:
        return f"{name} is no better than the baseline."
    return f"{name} has {phrases.describe_gain(data.study.metric, gain.relative)} than the baseline."


def _describe_gain(data: ReportData, gain: Gain) -> str:
    default = data.study.default
    baseline = f"the baseline ({phrases.score(default.mean, default.spread) if default else '–'})"
    if gain.relative is None:
        return f"Better than {baseline} by {format_number(gain.absolute)}."
    if not gain.absolute:  # "0 % less error" would read as a gain
        return f"Exactly as good as {baseline}."
    return sentence(f"{phrases.describe_gain(data.study.metric, gain.relative)} than {baseline}")


def _describe_certainty(gain: Gain) -> Sentence:
    # In this order: a loss is a loss, however uncertain.
    if gain.absolute <= 0:
        return Sentence("The search found nothing better.", "unsure")
    if gain.spread is None:
        return Sentence("Nothing was run under another seed, so this may be luck.", "unsure")
    spread = f"two runs that differ by their seed alone differ by about {format_number(gain.spread, 2)}"
    numbers = f"{spread}, and the gain is {format_number(gain.absolute, 2)}."
    if gain.clear:
        return Sentence(f"More than luck of the seed: {numbers}", "sure")
    return Sentence(f"This may be luck of the seed: {numbers}", "unsure")


def _saved_tile(data: ReportData) -> Tile:
    budget = data.budget
    total = budget.used + budget.saved
    share = budget.saved / total if total > 0 else 0.0
    note = f"{phrases.percent(share)} of the total, {phrases.plural(budget.saved_trials, 'trial')} stopped early"
    return Tile(phrases.hours(budget.saved), f"{budget.unit}-hours saved", note, "good")
