"""A study as its report looks at it: which trials are drawn, in what order, colour and role, with what tooltip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from depthray.config.metric_names import HIGHER_IS_BETTER
from tuning.report import phrases
from tuning.report.charts import axes
from tuning.report.charts.axes import Axis
from tuning.report.charts.marks import SHADES, Mark, Role
from tuning.study.importance import Importance
from tuning.study.outcome import Configuration, Outcome
from tuning.study.study import Study
from tuning.values import count_distinct, format_value

MAX_DRAWN = 400  # trials drawn wherever each takes much room
STATES = {"done": "ran to its end", "stopped": "stopped early", "failed": "failed", "running": "running"}


@dataclass(frozen=True)
class ReportData:
    """A study with what several parts of a report need of it, found once."""

    study: Study

    @property
    def metric(self) -> str:
        """The name of the score."""
        return self.study.search.metric

    @property
    def named(self) -> str:
        """The score's name for people."""
        return phrases.metric_title(self.metric)

    @property
    def higher(self) -> bool:
        """Whether a higher score is better."""
        return self.metric in HIGHER_IS_BETTER

    @cached_property
    def winner(self) -> Configuration | None:
        """The best configuration."""
        return self.study.winner()

    @cached_property
    def default(self) -> Configuration | None:
        """The recipe as it was given."""
        return self.study.default()

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Place by the name of a searched trial, from 1."""
        return {each.name: place for place, each in enumerate(self.ranking, 1)}

    @cached_property
    def ranking(self) -> list[Configuration]:
        """The searched configurations that have a score, best first."""
        return self.study.ranking()

    @cached_property
    def costs(self) -> tuple[str, ...]:
        """What was measured besides the score: latency_ms, parameters."""
        return self.study.objectives()[1:]

    @cached_property
    def searched(self) -> list[Outcome]:
        """The searched trials that have begun, in the order they were started."""
        begun = [each for each in self.study.trials if each.trial.kind == "search" and each.trial.state != "waiting"]
        return sorted(begun, key=lambda each: (each.trial.started, each.name))

    @cached_property
    def drawn(self) -> list[Outcome]:
        """Those of them that are drawn everywhere: all, or of very many the best and an even choice of the rest."""
        if len(self.searched) <= MAX_DRAWN:
            return self.searched
        order = sorted(self.searched, key=lambda each: self.ranks.get(each.name, len(self.searched)))
        rest = order[MAX_DRAWN // 2 :]
        kept = {each.name for each in [*order[: MAX_DRAWN // 2], *rest[:: -(-len(rest) // (MAX_DRAWN // 2))]]}
        return [each for each in self.searched if each.name in kept]

    @property
    def own_default(self) -> list[Outcome]:
        """The trial of the recipe as it was given, if it has one of its own."""
        return [each for each in self.study.trials if each.trial.kind == "default"]

    @cached_property
    def varied(self) -> list[str]:
        """The searched keys that had more than one value, the most important first."""
        values = {key: [self.study.value(each, key) for each in self.searched] for key in self.study.keys}
        found = [key for key in self.study.keys if count_distinct(values[key]) > 1]
        return sorted(found, key=lambda key: -self.importance.shares.get(key, 0.0))

    @cached_property
    def axis(self) -> Axis:
        """The scores of trials that ran to their end, and of the default; those of the others may be far behind."""
        trials = [*self.searched, *self.own_default]
        whole = [self.score(each) for each in trials if each.trial.state != "stopped"]
        scores = whole if sum(score is not None for score in whole) > 2 else [self.score(each) for each in trials]
        ends = [end for each in (self.winner, self.default) if each for end in seed_range(each)]
        return axes.score_axis([*scores, *ends], higher=self.higher, title=self.named)

    @cached_property
    def importance(self) -> Importance:
        """How much each key counts."""
        return self.study.importance()

    def score(self, each: Outcome) -> float | None:
        """The score a trial is compared by; None for one that failed, whatever it had reached."""
        return None if each.lost else each.score

    def mark(self, each: Outcome) -> Mark:
        """How a trial is drawn."""
        return self._marks[each.name]

    @cached_property
    def _marks(self) -> dict[str, Mark]:
        return {
            each.name: Mark(each.name, self.title(each), each.trial.state, self._shade(each), self.role(each))
            for each in self.study.trials
        }

    def role(self, each: Outcome) -> Role:
        """Whether it is the best or the default."""
        if self.winner is not None and each.name == self.winner.name:
            return "best"
        return "default" if self.default is not None and each.name == self.default.name else ""

    def title(self, each: Outcome) -> str:
        """What the tooltip of a trial says."""
        trial, metric = each.trial, phrases.NAMES.get(self.metric, self.metric)
        head = f"{each.name} · {metric} {phrases.score(each.score)}"
        rank = f", place {self.ranks[each.name]} of {len(self.ranks)}" if each.name in self.ranks else ""
        how = f"{STATES.get(trial.state, trial.state)} after {phrases.plural(each.epochs, 'epoch')}{rank}"
        few = len(self.searched) <= MAX_DRAWN  # of very many trials, only the table has their words
        words = [f"{key} = {format_value(value)}" for key, value in each.words.items()][: 12 if few else 0]
        role = {"best": ["the best configuration"], "default": ["the recipe as it was given"]}.get(self.role(each), [])
        return "\n".join([head, *role, how, *words, *([trial.error[:200]] if trial.error else [])])

    def _shade(self, each: Outcome) -> int | None:
        """The colour of a trial by its place among the searched ones."""
        if each.score is None or not self.ranks:
            return None
        place = self.ranks.get(each.name) or self.ranks.get(each.trial.of) or self._place_among(each.score)
        return min(SHADES - 1, (place - 1) * SHADES // len(self.ranks))

    def _place_among(self, value: float) -> int:
        scores = [each.outcome.score for each in self.ranking]
        return 1 + sum((found > value) == self.higher for found in scores if found is not None and found != value)


def seed_range(each: Configuration) -> tuple[float, ...]:
    spread = each.spread or 0.0
    return () if each.mean is None else (each.mean - spread, each.mean + spread)


def values(view: ReportData, trials: Sequence[Outcome], key: str) -> list[Any]:
    """A key's value in each of the trials."""
    return [view.study.value(each, key) for each in trials]
