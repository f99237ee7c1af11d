"""A search: trials of a recipe on Ray Tune, written down so that it can be taken up where it was left.

First the recipe as it is and the searched configurations, under a scheduler that stops the hopeless; then the best of
them again under other seeds, to their end, so that luck shows.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cluster.ray_private import wait_for_stopped_trial
from cluster.resources import Workers
from depthray.runs import layout
from tuning.records import ENDED, Search, SearchLimits, Trial, curve, read_trials, write_trial
from tuning.space.space import Space

TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's run folder has all that they would write
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # trials that no scheduler may stop report no objective
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the recorder says what happens
}
# Of a trial that trains on workers of its own: no CPU, which those would miss, and a node that is not taken away.
DRIVER_RESOURCES = {"cpu": 0.0, "node:__internal_head__": 0.0001}
LEAVE_SECONDS = 120  # for the step under way and its checkpoint
Say = Callable[[str], None]


@dataclass(frozen=True)
class TrialSource:
    """Where Tune takes trials from: a grid of tasks gone through once, or a searcher asked so many times."""

    space: dict[str, Any]
    searcher: Any
    samples: int


def explore(folder: Path, search: Search, space: Space, *, limits: SearchLimits, say: Say) -> None:
    """Run what has not ended of the recipe as it is and of the configurations, within the limits."""
    from tuning import schedulers

    trials = _initial_trials(folder, search, space)
    ended = [known for known in trials.values() if known.kind == "search" and known.state in ENDED]
    left = [known for known in trials.values() if known.kind != "repeat" and known.state not in ENDED]
    scheduler = schedulers.SCHEDULERS[search.scheduler](search, space)
    schedulers.replay(scheduler, folder, search.metric, ended)
    learns = search.searcher == "tpe"
    source = _proposals(folder, search, space, left=left, ended=ended) if learns else _listed(left)
    _run(folder, search, trials, source, scheduler=scheduler, limits=limits, say=say)


def confirm(folder: Path, search: Search, chosen: Sequence[Trial], *, limits: SearchLimits, say: Say) -> None:
    """Run the chosen trials again, each under `search.repeats` other seeds, every one to its end."""
    from ray.tune.schedulers import FIFOScheduler

    trials = {known.name: known for known in read_trials(folder)}
    for known in chosen:
        for seed in range(search.first_seed + 1, search.first_seed + 1 + search.repeats):
            name = f"{known.name}-seed{seed}"
            if name not in trials:
                words = {**known.words, "seed": seed}
                trials[name] = replace(template_of(search), name=name, kind="repeat", of=known.name, words=words)
                write_trial(folder, trials[name])
    left = [known for known in trials.values() if known.kind == "repeat" and known.state not in ENDED]
    _run(folder, search, trials, _listed(left), scheduler=FIFOScheduler(), limits=limits, say=say)


def points(search: Search, space: Space) -> list[dict[str, Any]]:
    """The configurations that are chosen without knowing any score; none for a searcher that learns."""
    if space.points:
        return [dict(point) for point in space.points]
    if search.searcher == "grid":
        return space.grid()
    rng = np.random.default_rng(search.seed)
    return [space.sample(rng) for _ in range(search.trials)] if search.searcher == "random" else []


def slots(nodes: Sequence[Mapping[str, float]], workers: Workers) -> int:
    """How many workers the nodes have room for at once. `nodes`: the resources of each."""
    gpus = workers.gpus or 1.0
    found = 0
    for node in nodes:
        by_cpu = int(node.get("CPU", 0) // (workers.cpus or 1))
        by_gpu = int(node.get("GPU", 0) / gpus + 1e-9) if workers.gpus else by_cpu
        found += min(by_cpu, by_gpu)
    return found


def template_of(search: Search) -> Trial:
    """What the trials of a search share."""
    return Trial(name="", kind="search", of="", words={}, workers=search.workers, cpus=search.cpus, gpus=search.gpus)


def workers_of(search: Search) -> Workers:
    """What each trial trains on."""
    return Workers(count=search.workers, cpus=int(search.cpus), gpus=search.gpus)


def _initial_trials(folder: Path, search: Search, space: Space) -> dict[str, Trial]:
    """All trials by name, those that are known before any has run among them."""
    trials = {known.name: known for known in read_trials(folder)}
    template = template_of(search)
    planned = [replace(template, name="default", of="default", kind="default")]
    for number, point in enumerate(points(search, space)):
        planned.append(replace(template, name=_name(number), of=_name(number), words=point))
    for known in planned:
        if known.name not in trials:
            trials[known.name] = known
            write_trial(folder, known)
    return trials


def _name(number: int) -> str:
    return f"{number:04d}"


def _task(known: Trial) -> dict[str, Any]:
    return {"name": known.name, "words": dict(known.words), "judged": known.kind == "search"}


def _listed(left: Sequence[Trial]) -> TrialSource:
    """Tasks known from the start."""
    from ray import tune

    return TrialSource({"trial": tune.grid_search([_task(known) for known in left])}, None, 1 if left else 0)


def _proposals(
    folder: Path, search: Search, space: Space, *, left: Sequence[Trial], ended: Sequence[Trial]
) -> TrialSource:
    """Tasks that are waiting, then what TPE proposes, told of the trials that ended."""
    from tuning.proposals import TPESearcher
    from tuning.schedulers import objective
    from tuning.trial import OBJECTIVE

    taken = {known.name for known in (*left, *ended) if known.kind == "search"}
    numbers = [number for number in range(search.trials) if _name(number) not in taken]
    # What was proposed before must not be proposed again by the same dice.
    seed = int(np.random.SeedSequence([search.seed, len(taken)]).generate_state(1)[0])
    objectives = [OBJECTIVE, *search.objectives[1:]]
    waiting = [_task(known) for known in left]
    found = TPESearcher(space, waiting, numbers=numbers, objectives=objectives, seed=seed, name=_name)
    for known in ended:
        told = [(epoch["epoch"], objective(search.metric, epoch)) for epoch in curve(layout.trial(folder, known.name))]
        if told:
            found.add(known.words, told, _objective_values(known, search, told) if known.state == "done" else None)
    return TrialSource({}, found, len(waiting) + len(numbers))


def _objective_values(known: Trial, search: Search, told: Sequence[tuple[int, float]]) -> list[float]:
    """The objectives of a trial that came to its end, in the order of the search."""
    from tuning.trial import WORST

    costs = {"latency_ms": known.latency_ms, "parameters": known.parameters}
    rest = [costs[key] for key in search.objectives[1:]]
    return [min(value for _, value in told), *(WORST if value is None else float(value) for value in rest)]


def _run(
    folder: Path,
    search: Search,
    trials: Mapping[str, Trial],
    source: TrialSource,
    *,
    scheduler: Any,
    limits: SearchLimits,
    say: Say,
) -> None:
    """Let Tune run the trials of a source."""
    if not source.samples or limits.reached:
        return
    os.environ.update(TUNE_ENVIRONMENT)
    from ray import tune

    # A trial's own errors are told by the recorder; Tune's are of checkpoints that it has deleted already.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    from tuning.recorder import LimitsReached, Recorder
    from tuning.trial import TrialSetup, run_trial

    workers = workers_of(search)
    plan = TrialSetup(folder, workers, carries=search.scheduler == "pbt")
    recorder = Recorder(folder, trials, template=template_of(search), metric=search.metric, limits=limits, say=say)
    tuner = tune.Tuner(
        tune.with_resources(_wait_for_trials(partial(run_trial, plan=plan)), _resources(workers)),
        param_space=source.space,
        tune_config=tune.TuneConfig(
            num_samples=source.samples,
            search_alg=source.searcher,
            scheduler=scheduler,
            max_concurrent_trials=search.concurrent,
            reuse_actors=workers.count == 1,  # saves the import of torch
            trial_dirname_creator=lambda known: str(known.config["trial"]["name"]),
        ),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(folder / layout.RAY),
            failure_config=tune.FailureConfig(max_failures=search.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4 if plan.carries else None),
            callbacks=[recorder],
            stop=LimitsReached(limits),
            verbose=0,
        ),
    )
    tuner.fit()


def _wait_for_trials(function: Callable[..., None]) -> Any:
    """A function for Tune whose trial, when a scheduler stops it, has time to leave.

    Tune waits 2 s for the thread of a trial before it lets another use the process, and loses the other one for good
    where a checkpoint takes longer. It does not wait at all before it ends a process, and then what Ray Train holds for
    workers that were started from it is not given back.
    """
    from ray.tune.trainable import wrap_function

    class Trainable(wrap_function(function)):  # type: ignore[misc]
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            wait_for_stopped_trial(LEAVE_SECONDS)
            if not super().reset_config(new_config):
                raise RuntimeError(f"the trial before it did not end within {LEAVE_SECONDS} s")
            return True

        def cleanup(self) -> None:
            wait_for_stopped_trial(LEAVE_SECONDS)
            super().cleanup()

    return Trainable


def _resources(workers: Workers) -> dict[str, float]:
    """What Tune holds for a trial's own process."""
    if workers.count > 1:
        return DRIVER_RESOURCES
    return {"cpu": float(workers.cpus or 1), **({"gpu": workers.gpus} if workers.gpus else {})}
