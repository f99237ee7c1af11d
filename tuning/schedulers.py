"""Ray Tune's schedulers as a search asks for them, told of the trials that ended before it was taken up again."""

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
    """Ray's rule, which would pause trials while it knows too few to judge: each pause is a start of a process here."""

    def judge_unknown(self) -> str:
        return str(TrialScheduler.CONTINUE)


class _NamedPopulation(PopulationHooks, PopulationBasedTraining):
    """Ray's scheduler, with the name of whom a trial goes on from in its configuration."""

    def extend_config(self, config: dict[str, Any], source: Any) -> dict[str, Any]:
        # The source's own configuration may still hold the name of a third trial.
        return {**config, "trial": {**config["trial"], "name": source.storage.trial_dir_name}}


def asha(search: Search, space: Space) -> TrialScheduler:
    """Successive halving, asynchronous (Li et al. 2020)."""
    grace = min(search.grace, search.epochs)
    return ASHAScheduler(**METRIC_SETTINGS, max_t=search.epochs, grace_period=grace, reduction_factor=search.reduction)


def median(search: Search, space: Space) -> TrialScheduler:
    """Stops a trial whose best is worse than the median of the others' running means (Golovin et al. 2017)."""
    return _MedianStopping(**METRIC_SETTINGS, grace_period=search.grace, min_samples_required=3)


def none(search: Search, space: Space) -> TrialScheduler:
    """Every trial runs to its end."""
    return FIFOScheduler()


def pbt(search: Search, space: Space) -> TrialScheduler:
    """Population based training (Jaderberg et al. 2017): the worst quarter goes on from the best, words changed."""
    mutations = {dimension.key: _mutations_of(dimension) for dimension in space.dimensions}
    return _NamedPopulation(
        **METRIC_SETTINGS,
        perturbation_interval=search.grace,
        hyperparam_mutations={"trial": {"words": mutations}},
        custom_explore_fn=partial(clip_to_space, space=space),
        require_attrs=False,  # the recipe as it is takes no part
        log_config=False,
    )


SCHEDULERS: dict[str, Callable[[Search, Space], TrialScheduler]] = {
    "asha": asha,
    "median": median,
    "pbt": pbt,
    "none": none,
}


def replay(scheduler: Any, folder: Path, metric: str, ended: Sequence[Trial]) -> None:
    """Tell a scheduler that begins anew what the trials before it reached."""
    for known in ended:
        past = EndedTrial(known.name)
        scheduler.on_trial_add(None, past)
        for told in curve(layout.trial(folder, known.name)):
            result = {"epoch": told["epoch"], OBJECTIVE: objective(metric, told)}
            if scheduler.on_trial_result(None, past, result) == TrialScheduler.STOP:
                break  # what is stopped may not be told of again


def objective(metric: str, told: Mapping[str, Any]) -> float:
    """What Tune saw of an epoch."""
    score = told.get(metric)
    return WORST if score is None or not math.isfinite(score) else rank_key(metric, score)


@dataclass(frozen=True)
class EndedTrial:
    """A trial of before, as far as schedulers look at one."""

    trial_id: str


def _mutations_of(dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return list(dimension.values)
    return partial(dimension.sample, np.random.default_rng())


def clip_to_space(config: dict[str, Any], *, space: Space) -> dict[str, Any]:
    """The words of a config brought back into their ranges, which a factor of 1.2 may have left."""
    found = config["trial"]["words"]
    for dimension in space.dimensions:
        if dimension.kind != "choice":
            found[dimension.key] = dimension.round(found[dimension.key])
    return config
