"""Optuna's TPE behind Tune's searcher interface.

Ray's own adapter gives Optuna the last score of a stopped trial as if it were its result, and cannot add the trials of
a search that is resumed. Here a stopped trial is a pruned one, with the scores of its epochs, and so are earlier ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from tuning.space.constraints import excess
from tuning.space.dimension import Dimension
from tuning.space.space import Space
from tuning.trial import FAILED, FINISHED, OBJECTIVE, WORST

Task = dict[str, Any]  # of a trial: name, words (its overrides), judged (whether a scheduler may stop it)
EpochScores = Sequence[tuple[int, float]]  # epoch, objective


class TPESearcher(Searcher):
    """Proposes the waiting tasks first, then configurations by TPE from the scores of the others."""

    def __init__(
        self,
        space: Space,
        waiting: Sequence[Task],
        *,
        numbers: Sequence[int],
        objectives: Sequence[str],
        constraints: Mapping[str, float] = MappingProxyType({}),
        seed: int,
        name: Callable[[int], str],
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode="min")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna starts with ten random trials, which would be most of a small search.
        startup = min(10, max(4, len(waiting) + len(numbers) // 3))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        self.objectives, self.constraints = list(objectives), dict(constraints)
        self.study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(self.objectives))
        self.dimensions = {dimension.key: dimension for dimension in space.dimensions}
        self.distributions = {key: _distribution(dimension) for key, dimension in self.dimensions.items()}
        self.waiting, self.numbers, self.name = list(waiting), list(numbers), name
        self.running: dict[str, optuna.trial.Trial] = {}
        self.best: dict[str, float] = {}

    def add(
        self,
        overrides: Mapping[str, Any],
        scores: EpochScores,
        values: Sequence[float] | None,
        costs: Mapping[str, float | None] = MappingProxyType({}),
    ) -> None:
        """Add a trial that ended before this start, with its objectives and costs, or as pruned without."""
        trial = _frozen_trial(self.distributions, overrides, scores, values)
        self._constrain(trial, costs)
        self.study.add_trial(trial)

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial for Tune."""
        if self.waiting:
            task = self.waiting.pop(0)
            if task["judged"]:  # not the baseline, whose values need not be in the space
                self.study.enqueue_trial(_encode(self.distributions, task["words"]))
                self.running[trial_id] = self.study.ask(self.distributions)
            return {"trial": task}
        if not self.numbers:
            return Searcher.FINISHED  # None would mean "later"
        proposal = self.running[trial_id] = self.study.ask(self.distributions)
        overrides = {key: _decode(self.dimensions[key], value) for key, value in proposal.params.items()}
        return {"trial": {"name": self.name(self.numbers.pop(0)), "words": overrides, "judged": True}}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Record the score of an epoch. The best counts in the end, as its checkpoint is the one that is kept."""
        if trial_id not in self.running or OBJECTIVE not in result:
            return
        self.best[trial_id] = min(self.best.get(trial_id, WORST), result[OBJECTIVE])
        if len(self.objectives) == 1:  # Optuna prunes by one objective only
            self.running[trial_id].report(result[OBJECTIVE], int(result["epoch"]))

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Record in the study how a trial ended."""
        trial = self.running.pop(trial_id, None)
        if trial is None:
            return
        if error or not result or FAILED in result:
            self.study.tell(trial, state=TrialState.FAIL)
        elif FINISHED not in result:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self._constrain(trial, result)
            # Tune reports the last epoch only here.
            final = {**result, OBJECTIVE: min(self.best.get(trial_id, WORST), result.get(OBJECTIVE, WORST))}
            self.study.tell(trial, [float(final.get(key, WORST)) for key in self.objectives])

    def _constrain(self, trial: optuna.trial.Trial | FrozenTrial, costs: Mapping[str, Any]) -> None:
        """Give Optuna what was measured against the limits: by how much of one each cost is beyond it."""
        for name, share in excess(self.constraints, costs).items():
            # As shares, since Optuna adds them up; one that is not finite is as bad as can be.
            trial.set_constraint(name, share if math.isfinite(share) else WORST)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a search is resumed from its own records."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing, see `save`."""


def _distribution(dimension: Dimension) -> BaseDistribution:
    low, high = dimension.low, dimension.high
    if dimension.kind == "choice":
        # As text: Optuna takes no lists, and confuses 1 and true.
        return CategoricalDistribution([json.dumps(value) for value in dimension.values])
    if dimension.kind in ("integer", "logint"):
        return IntDistribution(int(low), int(high), log=dimension.kind == "logint")
    return FloatDistribution(low, high, log=dimension.kind == "loguniform")


def _decode(dimension: Dimension, value: Any) -> Any:
    return json.loads(value) if dimension.kind == "choice" else dimension.round(value)


def _encode(distributions: Mapping[str, BaseDistribution], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides as Optuna stores them."""
    return {
        key: json.dumps(overrides[key]) if isinstance(kind, CategoricalDistribution) else overrides[key]
        for key, kind in distributions.items()
    }


def _frozen_trial(
    distributions: dict[str, BaseDistribution],
    overrides: Mapping[str, Any],
    scores: EpochScores,
    values: Sequence[float] | None,
) -> FrozenTrial:
    return create_trial(
        params=_encode(distributions, overrides),
        distributions=distributions,
        values=values,
        state=TrialState.COMPLETE if values else TrialState.PRUNED,
        intermediate_values=dict(scores),
    )
