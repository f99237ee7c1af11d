"""A study as its report shows it: which trials are drawn, in which order, colour and role, with which tooltip."""

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
from tuning.study.budget import Budget, budget
from tuning.study.importance import Importance, importance
from tuning.study.outcome import Configuration, Outcome
from tuning.study.study import Study
from tuning.values import count_distinct, format_value

MAX_DRAWN = 400  # trials in the charts: browsers become slow with more
TOOLTIP_KEYS = 12
STATES = {"done": "ran to its end", "stopped": "stopped early", "failed": "failed", "running": "running"}


@dataclass(frozen=True)
class ReportData:
    """A study with what several parts of its report need, computed once."""

    study: Study

    @property
    def metric_title(self) -> str:
        """The name of the score with its unit."""
        return phrases.metric_title(self.study.metric)

    @property
    def metric_name(self) -> str:
        """The name of the score without its unit."""
        return phrases.NAMES.get(self.study.metric, self.study.metric)

    @property
    def higher(self) -> bool:
        """Whether a higher score is better."""
        return self.study.metric in HIGHER_IS_BETTER

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives besides the score that were measured: latency_ms, parameters."""
        return self.study.objectives[1:]

    @cached_property
    def budget(self) -> Budget:
        """The cost of the search."""
        return budget(self.study)

    @cached_property
    def importance(self) -> Importance:
        """How much each key decided the score."""
        return importance(self.study)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Rank by the name of a searched trial, from 1."""
        return {each.name: rank for rank, each in enumerate(self.study.ranking, 1)}

    @cached_property
    def started(self) -> list[Outcome]:
        """The searched trials that have started, in the order of their start."""
        started = [each for each in self.study.searched if each.trial.state != "waiting"]
        return sorted(started, key=lambda each: (each.trial.started, each.name))

    @property
    def own_default(self) -> list[Outcome]:
        """The trial of the baseline, if it has one of its own."""
        return [each for each in self.study.trials if each.trial.kind == "default"]

    @cached_property
    def compared(self) -> list[Outcome]:
        """The started trials and that of the baseline."""
        return [*self.started, *self.own_default]

    @cached_property
    def drawn(self) -> list[Outcome]:
        """The started trials that every chart shows: all, or of very many the best and an even choice of the rest."""
        if len(self.started) <= MAX_DRAWN:
            return self.started
        order = sorted(self.started, key=lambda each: self.ranks.get(each.name, len(self.started)))
        # Bad trials show what was explored, so the rest is thinned, not dropped.
        rest = order[MAX_DRAWN // 2 :]
        kept = {each.name for each in [*order[: MAX_DRAWN // 2], *rest[:: -(-len(rest) // (MAX_DRAWN // 2))]]}
        return [each for each in self.started if each.name in kept]

    @cached_property
    def varied(self) -> list[str]:
        """The searched keys that had more than one value, the most important first."""
        # Grids and lists of points may leave a key constant; its charts would be empty.
        keys = [key for key in self.study.keys if count_distinct(self.values(self.started, key)) > 1]
        return sorted(keys, key=lambda key: -self.importance.shares.get(key, 0.0))

    @cached_property
    def axis(self) -> Axis:
        """The axis of scores: of trials that ran to their end, and of the baseline."""
        # Stopped trials may be far behind: they would squeeze the others together.
        complete = [self.score(each) for each in self.compared if each.trial.state != "stopped"]
        enough = sum(score is not None for score in complete) > 2
        scores = complete if enough else [self.score(each) for each in self.compared]
        # The brackets of the seeds must fit, too.
        ends = [end for each in (self.study.winner, self.study.default) if each for end in _seed_range(each)]
        return axes.score_axis([*scores, *ends], higher=self.higher, title=self.metric_title)

    def values(self, trials: Sequence[Outcome], key: str) -> list[Any]:
        """The value of a key in each of the trials."""
        return [self.study.value(each, key) for each in trials]

    def score(self, each: Outcome) -> float | None:
        """The score a trial is compared by; None for one that failed, whatever it had reached."""
        return None if each.lost else each.score

    def mark(self, each: Outcome) -> Mark:
        """How the charts draw a trial."""
        return self._marks[each.name]

    @cached_property
    def _marks(self) -> dict[str, Mark]:
        # Once for all charts: a dozen of them draw every trial.
        return {
            each.name: Mark(each.name, self.tooltip(each), each.trial.state, self._shade(each), self.role(each))
            for each in self.study.trials
        }

    def role(self, each: Outcome) -> Role:
        """Whether a trial is the best or the default."""
        winner, default = self.study.winner, self.study.default
        if winner is not None and each.name == winner.name:  # the baseline itself may be the best
            return "best"
        return "default" if default is not None and each.name == default.name else ""

    def tooltip(self, each: Outcome) -> str:
        """The text of a trial's tooltip."""
        trial = each.trial
        head = f"{each.name} · {self.metric_name} {phrases.score(each.score)}"
        rank = f", rank {self.ranks[each.name]} of {len(self.ranks)}" if each.name in self.ranks else ""
        end = f"{STATES.get(trial.state, trial.state)} after {phrases.plural(each.epochs, 'epoch')}{rank}"
        # With very many trials the page would grow by megabytes: there only the table has their values.
        shown = TOOLTIP_KEYS if len(self.started) <= MAX_DRAWN else 0
        values = [f"{key} = {format_value(value)}" for key, value in each.overrides.items()][:shown]
        role = {"best": ["the best configuration"], "default": ["the baseline recipe"]}.get(self.role(each), [])
        return "\n".join([head, *role, end, *values, *([trial.error[:200]] if trial.error else [])])

    def _shade(self, each: Outcome) -> int | None:
        """The colour of a trial by its rank among the searched ones."""
        if each.score is None or not self.ranks:
            return None
        # A repeat has the colour of the configuration it repeats.
        rank = self.ranks.get(each.name) or self.ranks.get(each.trial.of) or self._rank_among(each.score)
        return min(SHADES - 1, (rank - 1) * SHADES // len(self.ranks))

    def _rank_among(self, value: float) -> int:
        """The rank that a score of an unranked trial, such as the default, would have."""
        scores = [each.outcome.score for each in self.study.ranking]
        return 1 + sum((score > value) == self.higher for score in scores if score is not None and score != value)


def _seed_range(each: Configuration) -> tuple[float, ...]:
    spread = each.spread or 0.0
    return () if each.mean is None else (each.mean - spread, each.mean + spread)
