"""A search folder as numbers: the trials, the winner, and its gain over the baseline recipe.

study = Study.read(Path("runs/search"))
study.winner, study.gain()

What else is known of a study: `budget.budget`, `importance.importance`, `warnings.warnings`, `tables.as_json`.
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from depthray.config import recipe as recipes
from depthray.config.metric_names import rank_key
from depthray.config.overrides import read_yaml
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.runs import layout
from tuning.records import Search, read_search
from tuning.space import constraints
from tuning.space import space as spaces
from tuning.space.constraints import COSTS
from tuning.space.dimension import Dimension, overrides
from tuning.space.space import Space
from tuning.study.outcome import RANKED, Configuration, Outcome, configuration, read_outcomes
from tuning.values import canonical, finite_or_none, format_number


@dataclass(frozen=True)
class Gain:
    """How much better the winner is than something else; above 0 is better, whichever way the metric goes."""

    of: Literal["default", "median"]
    absolute: float
    relative: float | None  # of the other score; None where that is 0
    spread: float | None  # over seeds, of the difference of two single runs; None where nothing was repeated
    clear: bool | None  # whether the gain exceeds this spread


@dataclass(frozen=True)
class Study:
    """A search and the outcomes of its trials, whether it has ended or not."""

    search: Search
    trials: tuple[Outcome, ...]  # by name
    base: Mapping[str, Any]  # dotted key -> value, of the baseline recipe
    space: Space

    @staticmethod
    def read(folder: Path) -> Study:
        """The study of a search folder. Raises UsageError where there is none."""
        search = read_search(folder)
        space = spaces.parse(dict(search.space), where=str(folder / layout.SEARCH))
        return Study(search, read_outcomes(folder, search), _read_base(folder), space)

    @property
    def metric(self) -> str:
        """The name of the score."""
        return self.search.metric

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The searched ranges; none where the space is a list of points."""
        return self.space.dimensions

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The searched keys: those of the space, then any others that trials changed."""
        # Repeats change the seed, which is no searched key.
        changed = [key for each in self.trials if each.trial.kind != "repeat" for key in each.overrides]
        return tuple(dict.fromkeys([*(dimension.key for dimension in self.dimensions), *changed]))

    def value(self, outcome: Outcome, key: str) -> Any:
        """The value of a key in a trial; None for an option of the architecture that neither it nor the recipe sets."""
        return outcome.overrides.get(key, self.base.get(key))

    @cached_property
    def searched(self) -> list[Outcome]:
        """The searched trials: neither the default nor repeats."""
        return [each for each in self.trials if each.trial.kind == "search"]

    @cached_property
    def finished(self) -> list[Outcome]:
        """Searched trials that ended, done or stopped, with a score."""
        return [each for each in self.searched if each.ended and not each.lost]

    @cached_property
    def ranking(self) -> list[Configuration]:
        """The searched configurations that have a score and did not fail, best first; last those beyond a constraint.

        By the scores of their search trials: only a few are repeated. The winner need not be the first.
        """
        ranked = [each for each in self.searched if each.score is not None and each.trial.state in RANKED]
        ranked.sort(key=lambda each: (self.is_infeasible(each), rank_key(each.metric, each.score or 0.0), each.name))
        return [configuration(each, self.trials) for each in ranked]

    @cached_property
    def winner(self) -> Configuration | None:
        """The best mean over seeds among configurations that were repeated, and reliably; otherwise the best score.

        Only of those that were measured to be within all constraints.
        """
        feasible = [each for each in self.ranking if self.is_feasible(each.outcome)]
        # The best of many single scores is partly luck: once some are repeated, only those can win.
        repeated = [each for each in feasible if len(each.seeds) > 1]
        return min(repeated or feasible, key=lambda each: (each.lost, self._mean_rank(each)), default=None)

    @cached_property
    def best(self) -> Configuration | None:
        """What to train again: the winner, or the baseline where no searched configuration has a better mean."""
        gain, default = self.gain(), self.default
        if gain is not None and gain.absolute <= 0 and default is not None and self.is_feasible(default.outcome):
            return default
        return self.winner

    @property
    def keeps_baseline(self) -> bool:
        """Whether the search found nothing better than the baseline, which is then the best."""
        return self.best is not None and self.winner is not None and self.best.name != self.winner.name

    def is_infeasible(self, outcome: Outcome) -> bool:
        """Whether a trial is beyond a constraint."""
        return any(share > 0 for share in self._excess(outcome).values())

    def is_feasible(self, outcome: Outcome) -> bool:
        """Whether a trial is known to be within all constraints: one that did not end has not been measured."""
        return len(self._excess(outcome)) == len(self.search.constraints) and not self.is_infeasible(outcome)

    @cached_property
    def infeasible(self) -> list[Outcome]:
        """The searched trials that are beyond a constraint."""
        return [each for each in self.searched if self.is_infeasible(each)]

    @cached_property
    def default(self) -> Configuration | None:
        """The baseline recipe, once it ended with a score: its own trial, or a searched one with its values."""
        # Without a trial of its own, a configuration of a grid or of a list of points may be the baseline.
        own = [each for each in self.trials if each.trial.kind == "default"] or [
            each for each in self.searched if all(self._is_base(key, value) for key, value in each.overrides.items())
        ]
        scored = [each for each in own if each.ended and not each.lost]
        return configuration(scored[0], self.trials) if scored else None

    def gain(self) -> Gain | None:
        """The gain of the winner over the baseline, both as means over seeds; None without two different trials."""
        winner, default = self.winner, self.default
        if winner is None or default is None or winner.name == default.name:
            return None
        spreads = [each.spread for each in (winner, default) if each.spread is not None]
        # Where only one of them was repeated, its spread is taken for that of the other too.
        spread = math.sqrt(2 * statistics.mean(each**2 for each in spreads)) if spreads else None
        return self._gain("default", winner.mean, default.mean, spread)

    def gain_over_median(self) -> Gain | None:
        """The gain of the winner over the median of the finished trials, each with one seed; None below two."""
        winner, scores = self.winner, [each.score for each in self.finished if each.score is not None]
        if winner is None or len(scores) < 2:
            return None
        spread = None if winner.spread is None else math.sqrt(2) * winner.spread  # of a difference of two runs
        return self._gain("median", winner.outcome.score, statistics.median(scores), spread)

    @cached_property
    def objectives(self) -> tuple[str, ...]:
        """The metric, and what else was measured of any ranked trial."""
        ranked = [each.outcome.trial for each in self.ranking]
        costs = [name for name in COSTS if any(getattr(each, name) is not None for each in ranked)]
        return (self.metric, *costs)

    def pareto(self) -> list[Outcome]:
        """The Pareto front of the searched trials over the objectives, best metric first; none beyond a constraint."""
        ranked = [each.outcome for each in self.ranking if not self.is_infeasible(each.outcome)]
        values = [(each, _objective_values(each, self.objectives)) for each in ranked]
        measured = [(each, value) for each, value in values if value is not None]
        return [each for each, value in measured if not any(_dominates(other, value) for _, other in measured)]

    def provenance(self) -> dict[str, str]:
        """How the search was made: its settings, then what it recorded of code, data and machines."""
        search = self.search
        start = "" if search.scheduler == "none" else f" from epoch {search.grace}"
        settings = {
            "recipe": search.recipe,
            "searcher": search.searcher,
            "scheduler": f"{search.scheduler}{start}",
            "seed": f"{search.seed} of the searcher, {search.first_seed} of the recipe",
            "epochs": str(search.epochs),
            "trials": str(search.trials),
            "repeats": f"{search.repeats} of the best {search.top} and of the baseline",
            **({"constraints": describe_constraints(search)} if search.constraints else {}),
            "resources": f"{search.workers} x {search.cpus:g} CPU, {search.gpus:g} GPU; {search.concurrent} at a time",
        }
        return {**settings, **{key: str(value) for key, value in search.about.items()}}

    def accepts(self, key: str, value: Any) -> bool:
        """Whether the recipe may have this value of a key; options of the architecture are not checked."""
        try:
            Recipe.model_validate(recipes.unflatten({**self.base, key: value}))
        except ValidationError:
            return False
        return True

    def _excess(self, outcome: Outcome) -> dict[str, float]:
        return constraints.excess(self.search.constraints, {name: getattr(outcome.trial, name) for name in COSTS})

    def _is_base(self, key: str, value: Any) -> bool:
        return canonical(value) == canonical(self.base.get(key))

    def _mean_rank(self, each: Configuration) -> float:
        return rank_key(self.metric, each.mean) if each.mean is not None else math.inf

    def _gain(
        self, of: Literal["default", "median"], winner: float | None, other: float | None, spread: float | None
    ) -> Gain | None:
        if winner is None or other is None:
            return None
        gain = rank_key(self.metric, other) - rank_key(self.metric, winner)
        return Gain(of, gain, gain / abs(other) if other else None, spread, None if spread is None else gain > spread)


def best_recipe(folder: Path, study: Study) -> Recipe:
    """The recipe of the best trial, made as that made it, or the baseline. Raises UsageError where there is none."""
    if study.best is None:
        within = f" within {describe_constraints(study.search)}" if study.search.constraints else ""
        raise UsageError(f"{folder}: no searched trial{within} has a finite {study.metric}, so there is no best recipe")
    # Types only, as the trial has been trained: the checks of preflight may import torch.
    return recipes.read(str(folder / layout.RECIPE), overrides(study.best.outcome.overrides), trust=False)


def describe_constraints(search: Search) -> str:
    """The constraints in words: latency_ms <= 20."""
    return ", ".join(f"{name} <= {format_number(limit)}" for name, limit in search.constraints.items())


def train_line(study: Study, recipe: Recipe, *, path: str = "best.yaml") -> str:
    """The command that trains a recipe, stored at the path, as a trial of the search was trained."""
    search = study.search
    data = ["--data", recipe.data.root] if recipe.data.root else []
    gpu = ["--gpu"] if search.gpus else []
    # The number of CPUs decides how sums are split, and so the last digits of the score.
    cpus = ["--cpus-per-worker", str(max(1, round(search.cpus)))]
    return shlex.join(["depthray", "train", path, *data, "--workers", str(search.workers), *gpu, *cpus])


def _objective_values(outcome: Outcome, names: Sequence[str]) -> tuple[float, ...] | None:
    """The objectives of a trial, each better when lower; None unless it has them all."""
    values = [finite_or_none(outcome.score), *(finite_or_none(getattr(outcome.trial, name)) for name in names[1:])]
    known = [value for value in values if value is not None]
    return (rank_key(names[0], known[0]), *known[1:]) if len(known) == len(names) else None


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def _read_base(folder: Path) -> dict[str, Any]:
    """Dotted key -> value of the baseline recipe."""
    path = folder / layout.RECIPE
    if not path.is_file():
        raise UsageError(f"{folder} holds no search (recipe.yaml is missing)")
    try:
        # Types only: the checks of preflight would import torch, and a report must not wait for that.
        return recipes.flatten(Recipe.model_validate(read_yaml(path)))
    except ValidationError as error:
        raise UsageError(f"{path}: not a recipe of this version: {error.errors()[0]['msg']}") from None
