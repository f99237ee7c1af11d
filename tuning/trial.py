"""One trial: the recipe with the trial's overrides, trained where Tune put it, with every epoch reported to Tune.

A trial is a run in a folder of its own, so it resumes from its own checkpoints whatever ended it: a lost worker, a
killed driver, a search that was resumed. Tune is given no checkpoints, except for population based training.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cluster.resources import Workers
from cluster.workers import fit_on_workers
from depthray import models, predict
from depthray.batch import Batch, to_device
from depthray.checkpoints import manifest, select
from depthray.checkpoints.select import CheckpointName
from depthray.config import own_code
from depthray.config.metric_names import rank_key
from depthray.config.own_code import SharedCode
from depthray.config.sections import Recipe
from depthray.data.loader import eval_batches
from depthray.data.loader_processes import WORKER_CPUS
from depthray.errors import DepthrayError
from depthray.exporting import fastest
from depthray.predict import Predictor
from depthray.runs import control, layout, locate, progress
from depthray.runs.run import prepare, record
from depthray.runtimes.open import EAGER, open_model
from depthray.training import preflight
from depthray.training.frames import Frames
from tuning.records import curve
from tuning.space.dimension import overrides

OBJECTIVE = "objective"  # lower is better; missing for trials that no scheduler may stop
WORST = 1e9  # of a score that is not finite; infinity would spoil the schedulers' quantiles
FINISHED, FAILED = "finished", "failed"
RUNTIME = "runtime"
PASSES = 7  # that are timed
GATE = 4  # frames that an export is compared on: each trial makes one, and they differ in their weights alone


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a search share."""

    folder: Path
    workers: Workers
    code: SharedCode  # of one's own, that the recipe or the space names
    carries: bool = False  # checkpoints go through Tune, so that one trial can resume from another's
    served: bool = False  # the latency is that of the runtime that would serve the network


def run_trial(config: Mapping[str, Any], *, plan: TrialSetup) -> None:
    """What Tune runs: config["trial"] has the overrides, and whether a scheduler may judge the trial."""
    from ray import tune

    task = config["trial"]
    run = layout.trial(plan.folder, Path(tune.get_context().get_trial_dir()).name)
    try:
        own_code.receive(plan.code)
        recipe = _without_report(
            preflight.load(str(plan.folder / layout.RECIPE), overrides(task["words"]), trust=False)
        )
        _prepare(run, recipe)
        for metrics in _train(recipe, run, plan):
            checkpoint = _checkpoint(run, metrics["epoch"]) if plan.carries else None
            tune.report(_result(metrics, recipe, judged=task["judged"]), checkpoint=checkpoint)
    except DepthrayError as error:  # it would repeat itself: reported, so that Tune does not try again
        tune.report({FAILED: str(error)})


def _without_report(recipe: Recipe) -> Recipe:
    """The recipe without what is scored for people alone: trials are compared with each other, and time is short."""
    if not (recipe.model.weights or recipe.eval.also):
        return recipe
    return recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"zero_shot": False, "also": ()})})


def _prepare(run: Path, recipe: Recipe) -> None:
    """Make the run's folder ready to start, to resume, or to continue from the checkpoint of another trial."""
    from ray import tune

    given = tune.get_checkpoint()
    if given is not None:
        with given.as_directory() as folder:
            _take_over(run, Path(folder))
    prepare(run, recipe, resume=True)  # whether it is the first attempt or not


def _take_over(run: Path, given: Path) -> None:
    """Let the run continue from a checkpoint that is not its own."""
    root = run / layout.CHECKPOINTS
    # The trial's overrides change with it, also where it is given the same once more before it has one of its own.
    (run / layout.RECIPE).unlink(missing_ok=True)
    if any(_is_same(own, given) for own in select.committed(root)):
        return  # paused, or replaced by what it has
    at = manifest.read(given)
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(given, root / str(CheckpointName(at.step, at.epoch)))
    text = f"continues from epoch {at.epoch} of another trial"
    progress.append(run, {"kind": progress.REWOUND, "epoch": at.epoch, "text": text})


def _is_same(one: Path, other: Path) -> bool:
    # By the digests in it, as all trials give their checkpoints the same names.
    return (one / manifest.NAME).read_bytes() == (other / manifest.NAME).read_bytes()


def _train(recipe: Recipe, run: Path, plan: TrialSetup) -> Iterator[dict[str, Any]]:
    """The metrics of each epoch; the last with what the network costs, when everything is written."""
    workers = plan.workers
    last: dict[str, Any] = {}
    train = _train_here if workers.count == 1 else train_on_workers
    for metrics in train(recipe, run, workers):
        if metrics["ended"]:
            last = metrics
        else:
            yield metrics
    gpu = workers.gpus > 0 and workers.count == 1  # this process has none where others train
    yield {**(last or curve(run)[-1]), FINISHED: True, **measure_cost(run, gpu=gpu, served=plan.served)}


def _train_here(recipe: Recipe, run: Path, workers: Workers) -> Iterator[dict[str, Any]]:
    """Train in this process: a group of Ray Train for one worker would cost the start of another process."""
    from depthray import distributed

    os.environ[WORKER_CPUS] = str(workers.cpus or 1)
    for epoch in record(recipe, run, distributed.start(gpu=workers.gpus > 0)):
        yield {**epoch.metrics, "epoch": epoch.number, "ended": bool(epoch.ended)}


def train_on_workers(recipe: Recipe, run: Path, workers: Workers) -> Iterator[dict[str, Any]]:
    """Train on workers of Ray Train, which reports each epoch to this process."""
    from cluster.reports import EpochReports

    reports = EpochReports()
    done = curve(run)[-1]["epoch"] if curve(run) else 0
    with ThreadPoolExecutor(1) as thread:
        fit = thread.submit(fit_on_workers, recipe, run, workers, callbacks=[reports.callback])
        fit.add_done_callback(lambda _: reports.close())  # after an error as well, which `result` raises below
        with _stopping(run, fit):
            for metrics in reports:
                # Workers that replace lost ones report the epochs after their checkpoint again.
                if metrics["epoch"] > done:
                    yield from _lost_reports(recipe, run, after=done, before=metrics["epoch"])
                    done = metrics["epoch"]
                    yield metrics
            fit.result()
            yield from _lost_reports(recipe, run, after=done)


def _lost_reports(recipe: Recipe, run: Path, *, after: int, before: float = math.inf) -> Iterator[dict[str, Any]]:
    """The epochs between two that Ray reported: those of workers that were killed while they reported."""
    if before == after + 1:
        return
    epochs = recipe.train.epochs + recipe.finetune.epochs
    for epoch in curve(run):
        if after < epoch["epoch"] < before:
            yield {**epoch, "ended": epoch["epoch"] >= epochs}


@contextmanager
def _stopping(run: Path, fit: Future[None]) -> Iterator[None]:
    """Let the workers save and exit when the trial is stopped: killed ones keep their resources for long."""
    try:
        yield
    finally:
        if not fit.done():
            control.request_stop(run)


def _result(metrics: Mapping[str, Any], recipe: Recipe, *, judged: bool) -> dict[str, Any]:
    """What Tune gets of an epoch: numbers, the runtime, and the objective where a scheduler may judge the trial."""
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float) or key == RUNTIME}
    score = numbers.get(recipe.eval.monitor, math.nan)
    objective = rank_key(recipe.eval.monitor, score) if math.isfinite(score) else WORST
    return {**numbers, **({OBJECTIVE: objective} if judged else {})}


def _checkpoint(run: Path, epoch: int) -> Any:
    """The checkpoint of an epoch for Tune, once it is written."""
    from ray import tune

    while True:
        # The run writes checkpoints in a thread, and yields an epoch before its own is complete.
        own = select.committed(run / layout.CHECKPOINTS)
        if own and manifest.read(own[-1]).epoch >= epoch:
            return tune.Checkpoint.from_directory(str(own[-1]))
        time.sleep(0.05)


def measure_cost(run: Path, *, gpu: bool, served: bool = False) -> dict[str, Any]:
    """Parameters of a run's best checkpoint, and the median milliseconds of one validation image through it.

    By PyTorch, or if `served` by the fastest runtime whose export passes its gate, as `depthray serve promote` has it.
    The time depends on what else the machine does: compare it within a search only.
    """
    checkpoint = locate.resolve(run)
    predictor = predict.load(checkpoint, device="cuda" if gpu else "cpu")
    batch = _validation_batch(predictor)
    networks = {EAGER: predictor.model}
    with tempfile.TemporaryDirectory(prefix="depthray-") as work:
        if served and not gpu:  # on GPUs PyTorch serves
            exports = fastest.export_passing(checkpoint, Path(work), fastest.auto_targets(calibrated=False), gate=GATE)
            networks |= {name: open_model(path, device=predictor.device).network for name, path in exports.items()}
        with torch.inference_mode():
            calls = {name: partial(_pass, network, batch, gpu=gpu) for name, network in networks.items()}
            seconds = fastest.median_seconds(calls, rounds=PASSES)
    runtime = min(seconds, key=lambda name: seconds[name])
    parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
    return {"latency_ms": 1000 * seconds[runtime], "parameters": parameters, RUNTIME: runtime}


def _validation_batch(predictor: Predictor) -> Batch:
    """One validation image, on the device of the network."""
    data = predictor.recipe.data
    frames = Frames.open(predictor.recipe)
    _, batch = next(iter(eval_batches(frames.source, frames.fixed_frames()[:1], data, batch_size=1)))
    return to_device(batch, predictor.device, min_depth=data.min_depth, max_depth=data.max_depth)


def _pass(network: nn.Module, batch: Batch, *, gpu: bool) -> None:
    models.run(network, batch)
    if gpu:  # a pass returns before the GPU has computed it
        torch.cuda.synchronize()
