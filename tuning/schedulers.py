"""Ray Tune's schedulers with the settings of a search, and with the trials that ended before it was resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from cluster.ray_private import MedianStoppingHooks, PopulationHooks
from depthray.config.metric_names import rank_key
from depthray.runs import layout
from tuning.records import Search, Trial, curve
from tuning.space.dimension import Dimension
from tuning.space.space import Space
from tuning.trial import OBJECTIVE, WORST

METRIC_SETTINGS: dict[str, Any] = {"time_attr": "epoch", "metric": OBJECTIVE, "mode": "min"}


class _MedianStopping(MedianStoppingHooks, MedianStoppingRule):
    """Ray's rule without pauses while there are too few trials to compare: resuming one starts a process here."""

    def judge_unknown(self) -> str:
        return str(TrialScheduler.CONTINUE)


class _NamedPopulation(PopulationHooks, PopulationBasedTraining):
    """Ray's scheduler, which also puts the name of the trial that is copied into the configuration."""

    def extend_config(self, config: dict[str, Any], source: Any) -> dict[str, Any]:
        # The source's own configuration may still hold the name of a third trial.
        return {**config, "trial": {**config["trial"], "name": source.storage.trial_dir_name}}


def asha(search: Search, space: Space) -> TrialScheduler:
    """Successive halving, asynchronous (Li et al. 2020)."""
    grace = min(search.grace, search.epochs)  # Ray refuses a longer one
    return ASHAScheduler(**METRIC_SETTINGS, max_t=search.epochs, grace_period=grace, reduction_factor=search.reduction)


def median(search: Search, space: Space) -> TrialScheduler:
    """Stop a trial whose best score is worse than the median of the others' running means (Golovin et al. 2017)."""
    return _MedianStopping(**METRIC_SETTINGS, grace_period=search.grace, min_samples_required=3)


def none(search: Search, space: Space) -> TrialScheduler:
    """Run every trial to its end."""
    return FIFOScheduler()


def pbt(search: Search, space: Space) -> TrialScheduler:
    """Population based training (Jaderberg et al. 2017): the worst quarter continues from the best, with changes."""
    mutations = {dimension.key: _mutations_of(dimension) for dimension in space.dimensions}
    return _NamedPopulation(
        **METRIC_SETTINGS,
        perturbation_interval=search.grace,
        hyperparam_mutations={"trial": {"words": mutations}},
        custom_explore_fn=partial(clip_to_space, space=space),
        require_attrs=False,  # the baseline is not part of the population
        log_config=False,
    )


SCHEDULERS: dict[str, Callable[[Search, Space], TrialScheduler]] = {
    "asha": asha,
    "median": median,
    "pbt": pbt,
    "none": none,
}


def replay(scheduler: Any, folder: Path, metric: str, ended: Sequence[Trial]) -> None:
    """Give a new scheduler the results of the trials that ended before a search was resumed."""
    for trial in ended:
        past = EndedTrial(trial.name)
        scheduler.on_trial_add(None, past)
        for epoch in curve(layout.trial(folder, trial.name)):
            result = {"epoch": epoch["epoch"], OBJECTIVE: objective(metric, epoch)}
            if scheduler.on_trial_result(None, past, result) == TrialScheduler.STOP:
                break  # schedulers fail on results of a trial that they have stopped


def objective(metric: str, epoch: Mapping[str, Any]) -> float:
    """The objective that was reported to Tune for an epoch; lower is better."""
    score = epoch.get(metric)
    # Not infinity: it would spoil the quantiles and means of the schedulers.
    return WORST if score is None or not math.isfinite(score) else rank_key(metric, score)


@dataclass(frozen=True)
class EndedTrial:
    """An ended trial with all that schedulers use of one."""

    trial_id: str


def _mutations_of(dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return list(dimension.values)
    return partial(dimension.sample, np.random.default_rng())  # unseeded: Ray's own choices are not repeatable either


def clip_to_space(config: dict[str, Any], *, space: Space) -> dict[str, Any]:
    """Clamp the overrides of a configuration to their ranges: PBT multiplies them by 0.8 or 1.2."""
    overrides = config["trial"]["words"]
    for dimension in space.dimensions:
        if dimension.kind != "choice":
            overrides[dimension.key] = dimension.round(overrides[dimension.key])
    return config
