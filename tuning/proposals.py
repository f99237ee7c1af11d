"""Optuna's TPE behind Tune's searcher interface.

Ray's own adapter tells Optuna the last score of a stopped trial as if it were its result, and cannot be told of trials
of an earlier search. Here a stopped trial is a pruned one, with the scores of its epochs, and history is added as such.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from tuning.space.dimension import Dimension
from tuning.space.space import Space
from tuning.trial import FAILED, FINISHED, OBJECTIVE, WORST

Task = dict[str, Any]  # of a trial: name, words, judged
EpochScores = Sequence[tuple[int, float]]  # epoch, objective


class TPESearcher(Searcher):
    """Tasks that are waiting already, then configurations proposed by TPE from what is known of the others."""

    def __init__(
        self,
        space: Space,
        waiting: Sequence[Task],
        *,
        numbers: Sequence[int],
        objectives: Sequence[str],
        seed: int,
        name: Callable[[int], str],
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode="min")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna's ten random trials would be most of a small search.
        startup = min(10, max(4, len(waiting) + len(numbers) // 3))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        self.objectives = list(objectives)
        self.study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(self.objectives))
        self.dimensions = {dimension.key: dimension for dimension in space.dimensions}
        self.distributions = {key: _distribution(dimension) for key, dimension in self.dimensions.items()}
        self.waiting, self.numbers, self.name = list(waiting), list(numbers), name
        self.asked: dict[str, optuna.trial.Trial] = {}
        self.best: dict[str, float] = {}

    def add(self, words: Mapping[str, Any], told: EpochScores, values: Sequence[float] | None) -> None:
        """Tell of a trial that ended before: with its values, or pruned where it has none."""
        self.study.add_trial(_frozen_trial(self.distributions, words, told, values))

    def suggest(self, trial_id: str) -> Any:
        """The next task for Tune."""
        if self.waiting:
            task = self.waiting.pop(0)
            if task["judged"]:
                self.study.enqueue_trial(_encode(self.distributions, task["words"]))
                self.asked[trial_id] = self.study.ask(self.distributions)
            return {"trial": task}
        if not self.numbers:
            return Searcher.FINISHED
        asked = self.asked[trial_id] = self.study.ask(self.distributions)
        words = {key: _decode(self.dimensions[key], value) for key, value in asked.params.items()}
        return {"trial": {"name": self.name(self.numbers.pop(0)), "words": words, "judged": True}}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Keep the score of an epoch: a checkpoint of the best one is what a trial ends with."""
        if trial_id not in self.asked or OBJECTIVE not in result:
            return
        self.best[trial_id] = min(self.best.get(trial_id, WORST), result[OBJECTIVE])
        if len(self.objectives) == 1:  # Optuna prunes by one objective only
            self.asked[trial_id].report(result[OBJECTIVE], int(result["epoch"]))

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended."""
        asked = self.asked.pop(trial_id, None)
        if asked is None:
            return
        if error or not result or FAILED in result:
            self.study.tell(asked, state=TrialState.FAIL)
        elif FINISHED not in result:
            self.study.tell(asked, state=TrialState.PRUNED)
        else:
            # Tune tells of the last epoch only here.
            told = {**result, OBJECTIVE: min(self.best.get(trial_id, WORST), result.get(OBJECTIVE, WORST))}
            self.study.tell(asked, [float(told.get(key, WORST)) for key in self.objectives])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search is taken up from its own records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see save."""


def _distribution(dimension: Dimension) -> BaseDistribution:
    low, high = dimension.low, dimension.high
    if dimension.kind == "choice":
        # As text: Optuna takes no lists, and tells 1 and true apart badly.
        return CategoricalDistribution([json.dumps(value) for value in dimension.values])
    if dimension.kind in ("integer", "logint"):
        return IntDistribution(int(low), int(high), log=dimension.kind == "logint")
    return FloatDistribution(low, high, log=dimension.kind == "loguniform")


def _decode(dimension: Dimension, value: Any) -> Any:
    return json.loads(value) if dimension.kind == "choice" else dimension.round(value)


def _encode(distributions: Mapping[str, BaseDistribution], words: Mapping[str, Any]) -> dict[str, Any]:
    """Words as Optuna keeps them."""
    return {
        key: json.dumps(words[key]) if isinstance(kind, CategoricalDistribution) else words[key]
        for key, kind in distributions.items()
    }


def _frozen_trial(
    distributions: dict[str, BaseDistribution],
    words: Mapping[str, Any],
    told: EpochScores,
    values: Sequence[float] | None,
) -> FrozenTrial:
    return create_trial(
        params=_encode(distributions, words),
        distributions=distributions,
        values=values,
        state=TrialState.COMPLETE if values else TrialState.PRUNED,
        intermediate_values=dict(told),
    )
