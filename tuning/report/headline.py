"""The first screen of a report: who won, by how much, whether that is sure, what it cost so far."""

from __future__ import annotations

from typing import NamedTuple

from tuning.report import phrases
from tuning.report.report_data import ReportData
from tuning.report.trial_table import meaning
from tuning.study.outcome import Configuration
from tuning.study.study import Gain
from tuning.study.warnings import SearchWarning
from tuning.values import canonical, format_number, format_value

SILENT_SECONDS = 900  # seconds after which a search that has not ended is no longer taken to run


class Sentence(NamedTuple):
    """A sentence and how it is set."""

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
    """One thing to know."""

    kind: str
    head: str
    text: str


WARNING_TITLES = {
    "none": "No score",
    "failed": "Failed trials",
    "unfinite": "No finite score",
    "edge": "At the border",
    "unused": "Unknown effect",
    "budget": "Too few epochs?",
    "seeds": "Luck of the seed?",
    "default": "Gain",
    "population": "Changed in training",
}


def headline(view: ReportData) -> Headline:
    """The best configuration, in words."""
    best = view.winner
    if best is None or best.mean is None:
        yet = "" if view.study.search.ended else " yet"
        return Headline(f"No configuration has a score{yet}", "", "", "", "", (_waiting_sentence(view),))
    note = f"mean of {len(best.seeds)} seeds ± their standard deviation" if len(best.seeds) > 1 else "one seed"
    spread = "" if best.spread is None else phrases.format_spread(best.mean, best.spread)
    title = f"Best {'configuration' if view.study.search.ended else 'so far'}: trial {best.name}"
    return Headline(title, view.named, phrases.score(best.mean), spread, note, tuple(_sentences(view, best)))


def status(view: ReportData, now: float) -> SearchStatus:
    """Whether the search has ended, runs, or was left."""
    search, budget = view.study.search, view.study.budget()
    ended = sum(each.ended for each in view.study.trials)
    known = f"{ended} of {max(planned_trials(view), len(view.study.trials))} trials ended"
    if search.ended:
        return SearchStatus(
            "ended", f"ended {phrases.date(search.ended)}, after {phrases.duration(budget.wall_seconds)}"
        )
    sign = search.started + budget.wall_seconds
    if now - sign > SILENT_SECONDS:
        return SearchStatus("left", f"not finished: {known}, the last sign of life was {phrases.date(sign)}")
    left = "" if budget.left_seconds is None else f", about {phrases.duration(budget.left_seconds)} left"
    return SearchStatus("running", f"running: {known}{left}")


def planned_trials(view: ReportData) -> int:
    """How many trials there will be: those searched, their repeats, and the default with its own."""
    search = view.study.search
    return search.trials + search.top * search.repeats + (1 + search.repeats if search.repeats else 1)


def changes(view: ReportData) -> list[KeyChange]:
    """What the best configuration changes in the recipe."""
    if view.winner is None:
        return []
    base = view.study.base
    return [
        KeyChange(key, format_value(base[key]) if key in base else "–", format_value(value), meaning(key))
        for key, value in view.winner.outcome.words.items()
        if key != "seed" and canonical(value) != canonical(base.get(key))
    ]


def tiles(view: ReportData) -> list[Tile]:
    """The search in numbers."""
    budget, trials = view.study.budget(), view.study.trials
    states = [each.trial.state for each in trials]
    parts = [f"{states.count(name)} {name}" for name in ("stopped", "running", "waiting") if name in states]
    found = [
        Tile(str(len(trials)), "trials", ", ".join([f"{states.count('done')} to the end", *parts])),
        Tile(phrases.hours(budget.used), f"{budget.unit}-hours used", f"in {phrases.duration(budget.wall_seconds)}"),
    ]
    if budget.saved_trials:
        found.append(_saved_tile(view))
    if budget.wasted_trials:
        lost = phrases.plural(budget.wasted_trials, "trial") + " failed or without a score"
        found.append(Tile(phrases.hours(budget.wasted), f"{budget.unit}-hours wasted", lost, "bad"))
    if budget.left_seconds is not None and not view.study.search.ended:
        amount = f"{phrases.hours(budget.left)} {budget.unit}-hours" if budget.left is not None else ""
        found.append(Tile(phrases.duration(budget.left_seconds), "to go, about", amount))
    return found


def report_warnings(view: ReportData) -> list[ReportWarning]:
    """What to know before believing the result."""
    found = view.study.cautions()
    unused = [each.key for each in found if each.kind == "unused"]
    if len(unused) > 1:  # one line for all of them
        text = f"{phrases.join_names(unused)} had the same value in all finished trials: nothing is known of them"
        found = [*(each for each in found if each.kind != "unused"), SearchWarning("unused", text)]
    return [ReportWarning(each.kind, WARNING_TITLES[each.kind], _capital(each.text)) for each in found]


def _capital(text: str) -> str:
    """A sentence, unless it begins with a name such as abs_rel."""
    first = text.split(" ", 1)[0]
    return f"{text[:1].upper() if first.isalpha() else text[:1]}{text[1:]}."


def _waiting_sentence(view: ReportData) -> Sentence:
    metric, ended = view.metric, sum(each.ended for each in view.study.trials)
    if not view.study.trials:
        return Sentence("No trial has begun.")
    return Sentence(f"{phrases.plural(ended, 'trial')} of {len(view.study.trials)} ended, none with a finite {metric}.")


def _sentences(view: ReportData, best: Configuration) -> list[Sentence]:
    found = [Sentence(phrases.meaning(view.metric, best.mean or 0.0))]
    gain, median = view.study.gain(), view.study.gain_over_median()
    if gain is not None:
        found += [Sentence(_describe_gain(view, gain), "gain"), _describe_certainty(gain)]
    elif view.default is not None and best.name == view.default.name:
        found.append(Sentence("That is the recipe as it was given: nothing that was tried is better.", "gain"))
    else:
        found.append(Sentence("The recipe as it was given has no score to compare with."))
    if median is not None and median.relative is not None:
        words = phrases.describe_gain(view.metric, median.relative)
        found.append(Sentence(f"Against the middle one of all trials: {words}."))
    return [each for each in found if each.text]


def _describe_gain(view: ReportData, gain: Gain) -> str:
    default = view.default
    given = phrases.score(default.mean, default.spread) if default else "–"
    if gain.relative is None:
        return f"Better than the recipe as it was given ({given}) by {format_number(gain.absolute)}."
    if not gain.absolute:
        return f"Exactly as good as the recipe as it was given ({given})."
    return f"{_first_up(phrases.describe_gain(view.metric, gain.relative))} than the recipe as it was given ({given})."


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]


def _describe_certainty(gain: Gain) -> Sentence:
    if gain.absolute <= 0:
        return Sentence("The search found nothing better.", "unsure")
    if gain.spread is None:
        return Sentence("Nothing was run under another seed, so this may be luck.", "unsure")
    scatter = f"two runs that differ by their seed alone differ by about {format_number(gain.spread, 2)}"
    if gain.clear:
        return Sentence(
            f"More than luck of the seed: {scatter}, and the gain is {format_number(gain.absolute, 2)}.", "sure"
        )
    return Sentence(
        f"That may be luck of the seed: {scatter}, and the gain is {format_number(gain.absolute, 2)}.", "unsure"
    )


def _saved_tile(view: ReportData) -> Tile:
    budget = view.study.budget()
    share = budget.saved / (budget.used + budget.saved) if budget.used + budget.saved > 0 else 0.0
    note = f"{phrases.percent(share)} of the whole, {phrases.plural(budget.saved_trials, 'trial')} stopped early"
    return Tile(phrases.hours(budget.saved), f"{budget.unit}-hours saved", note, "good")
