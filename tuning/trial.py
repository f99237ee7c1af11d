"""One trial: the recipe with the trial's words, trained where Tune put it, every epoch told to Tune.

A trial is a run in a folder of its own, so it goes on from its own checkpoints whatever ended it: a lost worker, a
killed driver, another search taken up in its place. Tune is given no checkpoints, but for population based training.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.resources import Workers
from cluster.workers import fit_on_workers
from depthray.checkpoints import manifest, select
from depthray.config.metric_names import rank_key
from depthray.config.sections import Recipe
from depthray.errors import DepthrayError
from depthray.runs import progress
from depthray.runs.run import STOP, prepare, record
from depthray.training import preflight
from tuning.records import REWOUND, curve
from tuning.space.dimension import overrides
from tuning.trial_cost import measure_cost

OBJECTIVE = "objective"  # lower is better; missing for trials that no scheduler may stop
WORST = 1e9  # of a score that is not finite; infinity would spoil the schedulers' quantiles
FINISHED, FAILED = "finished", "failed"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a search share."""

    folder: Path
    workers: Workers
    carries: bool = False  # checkpoints go through Tune, so that one trial can go on from another's


def run_trial(config: Mapping[str, Any], *, plan: TrialSetup) -> None:
    """What Tune runs: config["trial"] has the words, and whether a scheduler may judge the trial."""
    from ray import tune

    task = config["trial"]
    run = plan.folder / "trials" / Path(tune.get_context().get_trial_dir()).name
    try:
        recipe = preflight.load(str(plan.folder / "recipe.yaml"), overrides(task["words"]))
        _prepare(run, recipe)
        for told in _train(recipe, run, plan.workers):
            carried = _carried(run, told["epoch"]) if plan.carries else None
            tune.report(_judged(told, recipe, judged=task["judged"]), checkpoint=carried)
    except DepthrayError as error:  # it would come again: told, so that Tune does not try again
        tune.report({FAILED: str(error)})


def _prepare(run: Path, recipe: Recipe) -> None:
    """Make the run's folder ready to begin, to go on, or to go on from the checkpoint of another trial."""
    from ray import tune

    given = tune.get_checkpoint()
    if given is not None:
        with given.as_directory() as folder:
            _take_over(run, Path(folder))
    prepare(run, recipe, resume=True)


def _take_over(run: Path, given: Path) -> None:
    """Let the run go on from a checkpoint that is not its own."""
    root = run / select.FOLDER
    if any(_same(own, given) for own in select.committed(root)):
        return  # paused, not replaced
    at = manifest.read(given)
    shutil.rmtree(root, ignore_errors=True)
    (run / "recipe.yaml").unlink(missing_ok=True)
    shutil.copytree(given, root / f"epoch-{at.epoch:04d}-step-{at.step:08d}")
    text = f"goes on from epoch {at.epoch} of another trial"
    progress.append(run, {"kind": REWOUND, "epoch": at.epoch, "text": text})


def _same(one: Path, other: Path) -> bool:
    return (one / manifest.NAME).read_bytes() == (other / manifest.NAME).read_bytes()


def _train(recipe: Recipe, run: Path, workers: Workers) -> Iterator[dict[str, Any]]:
    """The metrics of each epoch; the last with what the network costs, when everything is written."""
    last: dict[str, Any] = {}
    for told in _here(recipe, run, workers) if workers.count == 1 else _inside(recipe, run, workers):
        if told["ended"]:
            last = told
        else:
            yield told
    gpu = workers.gpus > 0 and workers.count == 1  # this process has none where others train
    yield {**(last or curve(run)[-1]), FINISHED: True, **measure_cost(run, gpu=gpu)}


def _here(recipe: Recipe, run: Path, workers: Workers) -> Iterator[dict[str, Any]]:
    """Train in this process."""
    from depthray import distributed

    for epoch in record(recipe, run, distributed.start(gpu=workers.gpus > 0)):
        yield {**epoch.metrics, "epoch": epoch.number, "ended": bool(epoch.ended)}


def _inside(recipe: Recipe, run: Path, workers: Workers) -> Iterator[dict[str, Any]]:
    """Train on workers of Ray Train, and follow what they write."""
    known = {told["epoch"] for told in curve(run)}
    epochs = recipe.train.epochs + recipe.finetune.epochs
    with ThreadPoolExecutor(1) as thread:
        fit = thread.submit(fit_on_workers, recipe, run, workers)
        with _stopping(run, fit):
            while not fit.done():
                time.sleep(POLL_SECONDS)
                yield from _news(run, known, epochs)
            fit.result()
            yield from _news(run, known, epochs)


@contextmanager
def _stopping(run: Path, fit: Future[None]) -> Iterator[None]:
    """Let the workers save and leave when the trial is ended before them: killed ones keep their resources for long."""
    try:
        yield
    finally:
        if not fit.done():
            (run / STOP).touch()


def _news(run: Path, known: set[int], epochs: int) -> Iterator[dict[str, Any]]:
    """The epochs that are not known yet, which they are then."""
    for told in curve(run):
        if told["epoch"] not in known:
            known.add(told["epoch"])
            yield {**told, "ended": told["epoch"] >= epochs}


def _judged(told: dict[str, Any], recipe: Recipe, *, judged: bool) -> dict[str, Any]:
    """What Tune is told of an epoch: numbers only, with the objective where a scheduler may look at it."""
    numbers = {key: value for key, value in told.items() if isinstance(value, int | float)}
    score = numbers.get(recipe.eval.monitor, math.nan)
    worth = rank_key(recipe.eval.monitor, score) if math.isfinite(score) else WORST
    return {**numbers, **({OBJECTIVE: worth} if judged else {})}


def _carried(run: Path, epoch: int) -> Any:
    """The checkpoint of an epoch for Tune, when it is written."""
    from ray import tune

    while True:
        own = select.committed(run / select.FOLDER)
        if own and manifest.read(own[-1]).epoch >= epoch:
            return tune.Checkpoint.from_directory(str(own[-1]))
        time.sleep(0.05)
