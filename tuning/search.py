"""A search: trials of a recipe on Ray Tune, recorded so that it can be resumed.

First the baseline recipe and the searched configurations, under a scheduler that stops bad trials early; then repeats
of the best under other seeds, to their end, which show how much of a gain is luck.
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
from depthray.config import own_code
from depthray.config.ray_environment import gpu_slots
from depthray.runs import layout
from tuning.records import ENDED, Search, SearchLimits, Trial, curve, read_trials, write_trial
from tuning.space.constraints import COSTS
from tuning.space.space import Space

TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's run folder has its own logs
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # trials that no scheduler may stop report no objective
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # else short epochs fill the log
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # so that relative paths of data mean the same in trials
    "RAY_AIR_NEW_OUTPUT": "0",  # the recorder reports instead
}
# A trial with workers of its own takes none of their CPUs, and runs on the head node, which is never scaled down.
DRIVER_RESOURCES = {"cpu": 0.0, "node:__internal_head__": 0.0001}
LEAVE_SECONDS = 120  # for the current step and its checkpoint
Log = Callable[[str], None]


@dataclass(frozen=True)
class TrialSource:
    """Where Tune gets trials from: a grid of tasks, or a searcher that proposes `samples` of them."""

    space: dict[str, Any]
    searcher: Any
    samples: int


def explore(folder: Path, search: Search, space: Space, *, limits: SearchLimits, log: Log) -> None:
    """Run the baseline and the configurations that have not ended, within the limits."""
    from tuning import schedulers

    trials = _initial_trials(folder, search, space)
    ended = [trial for trial in trials.values() if trial.kind == "search" and trial.state in ENDED]
    left = [trial for trial in trials.values() if trial.kind != "repeat" and trial.state not in ENDED]
    scheduler = schedulers.SCHEDULERS[search.scheduler](search, space)
    schedulers.replay(scheduler, folder, search.metric, ended)
    is_tpe = search.searcher == "tpe"
    source = _proposals(folder, search, space, left=left, ended=ended) if is_tpe else _fixed_tasks(left)
    _run(folder, search, trials, source, scheduler=scheduler, limits=limits, log=log)


def confirm(folder: Path, search: Search, chosen: Sequence[Trial], *, limits: SearchLimits, log: Log) -> None:
    """Repeat the chosen trials, each under `search.repeats` other seeds and to its end."""
    from ray.tune.schedulers import FIFOScheduler

    trials = {trial.name: trial for trial in read_trials(folder)}
    for trial in chosen:
        for seed in range(search.first_seed + 1, search.first_seed + 1 + search.repeats):
            name = f"{trial.name}-seed{seed}"
            if name not in trials:
                words = {**trial.words, "seed": seed}
                trials[name] = replace(template_of(search), name=name, kind="repeat", of=trial.name, words=words)
                write_trial(folder, trials[name])
    left = [trial for trial in trials.values() if trial.kind == "repeat" and trial.state not in ENDED]
    _run(folder, search, trials, _fixed_tasks(left), scheduler=FIFOScheduler(), limits=limits, log=log)


def points(search: Search, space: Space) -> list[dict[str, Any]]:
    """The configurations that do not depend on any score; none for a searcher that learns from scores."""
    if space.points:
        return [dict(point) for point in space.points]
    if search.searcher == "grid":
        return space.grid()
    rng = np.random.default_rng(search.seed)
    return [space.sample(rng) for _ in range(search.trials)] if search.searcher == "random" else []


def slots(nodes: Sequence[Mapping[str, float]], workers: Workers) -> int:
    """The number of workers that fit on the nodes at once; `nodes` are the resources of each."""
    count = 0
    for node in nodes:
        # Node by node, as a worker cannot use CPUs of two.
        by_cpu = int(node.get("CPU", 0) // (workers.cpus or 1))
        by_gpu = gpu_slots(node.get("GPU", 0), workers.gpus) if workers.gpus else by_cpu
        count += min(by_cpu, by_gpu)
    return count


def template_of(search: Search) -> Trial:
    """The fields that all trials of a search share."""
    return Trial(name="", kind="search", of="", words={}, workers=search.workers, cpus=search.cpus, gpus=search.gpus)


def workers_of(search: Search) -> Workers:
    """The workers of each trial."""
    return Workers(count=search.workers, cpus=int(search.cpus), gpus=search.gpus)


def _initial_trials(folder: Path, search: Search, space: Space) -> dict[str, Trial]:
    """All trials by name, with those that can be listed before any has run."""
    trials = {trial.name: trial for trial in read_trials(folder)}
    template = template_of(search)
    planned = [replace(template, name="default", of="default", kind="default")]
    for number, point in enumerate(points(search, space)):
        planned.append(replace(template, name=_name(number), of=_name(number), words=point))
    # Recorded before they run, as trials that wait: the report knows how many are left.
    for trial in planned:
        if trial.name not in trials:
            trials[trial.name] = trial
            write_trial(folder, trial)
    return trials


def _name(number: int) -> str:
    return f"{number:04d}"


def _task(trial: Trial) -> dict[str, Any]:
    """What Tune's configuration of a trial holds; a scheduler may stop only those that are `judged`."""
    return {"name": trial.name, "words": dict(trial.words), "judged": trial.kind == "search"}


def _fixed_tasks(left: Sequence[Trial]) -> TrialSource:
    """A source of these tasks, each once."""
    from ray import tune

    return TrialSource({"trial": tune.grid_search([_task(trial) for trial in left])}, None, 1 if left else 0)


def _proposals(
    folder: Path, search: Search, space: Space, *, left: Sequence[Trial], ended: Sequence[Trial]
) -> TrialSource:
    """A source of the waiting tasks and then of what TPE proposes, with the trials that ended as its history."""
    from tuning.proposals import TPESearcher
    from tuning.schedulers import objective
    from tuning.trial import OBJECTIVE

    taken = {trial.name for trial in (*left, *ended) if trial.kind == "search"}
    numbers = [number for number in range(search.trials) if _name(number) not in taken]
    # With the seed of the first start, a resumed search would propose the same configurations again.
    seed = int(np.random.SeedSequence([search.seed, len(taken)]).generate_state(1)[0])
    objectives = [OBJECTIVE, *search.objectives[1:]]
    waiting = [_task(trial) for trial in left]
    searcher = TPESearcher(
        space,
        waiting,
        numbers=numbers,
        objectives=objectives,
        constraints=search.constraints,
        seed=seed,
        name=_name,
    )
    for trial in ended:
        scores = [
            (epoch["epoch"], objective(search.metric, epoch)) for epoch in curve(layout.trial(folder, trial.name))
        ]
        if scores:
            values = _objective_values(trial, search, scores) if trial.state == "done" else None
            searcher.add(trial.words, scores, values, {name: getattr(trial, name) for name in COSTS})
    return TrialSource({}, searcher, len(waiting) + len(numbers))


def _objective_values(trial: Trial, search: Search, scores: Sequence[tuple[int, float]]) -> list[float]:
    """The objectives of a trial that ran to its end, in the order of the search."""
    from tuning.trial import WORST

    rest = [getattr(trial, key) for key in search.objectives[1:]]
    return [min(value for _, value in scores), *(WORST if value is None else float(value) for value in rest)]


def _run(
    folder: Path,
    search: Search,
    trials: Mapping[str, Trial],
    source: TrialSource,
    *,
    scheduler: Any,
    limits: SearchLimits,
    log: Log,
) -> None:
    """Let Tune run the trials of a source."""
    if not source.samples or limits.reached:
        return
    os.environ.update(TUNE_ENVIRONMENT)
    # Imported after them, as Tune reads these variables when it is.
    from ray import tune

    # The recorder reports the errors of trials; Tune's own are about checkpoints that it has deleted already.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    from tuning.recorder import LimitsReached, Recorder
    from tuning.trial import TrialSetup, run_trial

    workers = workers_of(search)
    served = "latency_ms" in (*search.objectives, *search.constraints)
    plan = TrialSetup(folder, workers, own_code.share(), carries=search.scheduler == "pbt", served=served)
    recorder = Recorder(folder, trials, template=template_of(search), metric=search.metric, limits=limits, log=log)
    tuner = tune.Tuner(
        tune.with_resources(_wait_for_trials(partial(run_trial, plan=plan)), _resources(workers)),
        param_space=source.space,
        tune_config=tune.TuneConfig(
            num_samples=source.samples,
            search_alg=source.searcher,
            scheduler=scheduler,
            max_concurrent_trials=search.concurrent,
            reuse_actors=workers.count == 1,  # saves the import of torch
            # By this name `run_trial` finds its run.
            trial_dirname_creator=lambda trial: str(trial.config["trial"]["name"]),
        ),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),  # a new one: a search is resumed from its own records, not by Tune
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
    """A trainable for Tune whose trial has time to save and end when a scheduler stops it.

    Tune waits 2 s for the thread of a trial before it starts the next trial in the process, and loses that one for good
    if a checkpoint takes longer. It does not wait at all before it ends a process, and then the resources that Ray
    Train reserved for workers started from it are never released.
    """
    from ray.tune.trainable import wrap_function

    class WaitingTrainable(wrap_function(function)):  # type: ignore[misc]
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            wait_for_stopped_trial(LEAVE_SECONDS)
            if not super().reset_config(new_config):
                raise RuntimeError(f"the previous trial did not end within {LEAVE_SECONDS} s")
            return True

        def cleanup(self) -> None:
            wait_for_stopped_trial(LEAVE_SECONDS)
            super().cleanup()

    return WaitingTrainable


def _resources(workers: Workers) -> dict[str, float]:
    """The resources that Tune reserves for the process of a trial itself."""
    if workers.count > 1:
        return DRIVER_RESOURCES
    return {"cpu": float(workers.cpus or 1), **({"gpu": workers.gpus} if workers.gpus else {})}
