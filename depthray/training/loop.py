"""The training loop: `fit(recipe, state, frames)` is a generator of what happened; the caller logs, saves and reports.

The same loop runs alone, under torchrun and under Ray Train: all that concerns other processes is in `distributed`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import get_args

from depthray import distributed
from depthray.batch import to_device
from depthray.checkpoints.model_facts import MeanAndEnds, ProtocolScores, finite
from depthray.config.metric_names import rank_key
from depthray.config.sections import Monitor, Recipe
from depthray.data.loader import eval_batches
from depthray.data.mixing import data_sets
from depthray.errors import UsageError
from depthray.evaluation import protocols
from depthray.evaluation.comparing.paired import FrameScores, compare
from depthray.evaluation.evaluate import evaluate, sheet_rows
from depthray.evaluation.report import Evaluation
from depthray.imaging import sheets
from depthray.runtimes.canonical_depth import in_metres
from depthray.runtimes.passes import Passes
from depthray.runtimes.precision import Precision
from depthray.training import schedule
from depthray.training.averaging import recompute_batchnorm
from depthray.training.frames import Frames
from depthray.training.gain import VALIDATION, score_further
from depthray.training.state import State
from depthray.training.step import Stepper, seed_step
from depthray.training.steps.objective import Objective
from depthray.training.throughput import Interval, ThroughputMeter


@dataclass(frozen=True)
class SavePoint:
    """A moment inside an epoch worth saving."""

    reason: str = ""  # why training stops here; "" = it continues
    requested: bool = False  # by `Hooks.save_requested`; whoever asked waits for `Hooks.saved`


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its scores, and on rank 0 the fixed validation frames as rows of a contact sheet."""

    number: int  # from 1; 0 = the weights that the run starts from
    step: int
    metrics: dict[str, float]
    frames: list[sheets.SheetRow] = field(default_factory=list)
    further: dict[str, dict[str, float]] = field(default_factory=dict)  # scores of the sets of eval.also, by path
    ended: str = ""  # why training ends with this epoch; "" = it continues
    stopped: bool = False  # it ends early, on request or by its time limit, and can be resumed
    note: str = ""  # what whoever watches should know of it
    # On rank 0 the scores with their intervals, computed where they are kept: of many frames that takes a while.
    intervals: Callable[[], ProtocolScores] | None = None


Event = Interval | SavePoint | Epoch


def fit(recipe: Recipe, state: State, frames: Frames) -> Iterator[Event]:
    """Train from the state's position to the recipe's end, yielding intervals, save points and epochs.

    Raises DivergedError after `train.max_bad_steps` non-finite losses in a row, naming the samples of the last batch.
    """
    recipe = data_sets.resolve(recipe)
    if not state.phases.epochs:
        yield _score_start(recipe, state, frames, ended="no epochs requested")
        return
    if state.can_predict and recipe.eval.zero_shot:
        yield _score_start(recipe, state, frames)
    objective: Objective | None = None
    while state.position.epoch < state.phases.epochs:
        if _enter_epoch(recipe, state) or objective is None:
            objective = None  # one wrapped for other parameters must be gone before the next
            objective = Objective(recipe, state)
        yield from _train_epoch(recipe, state, frames, objective)
        if state.position.step_in_epoch < frames.steps_per_epoch:
            return  # stopped inside the epoch, after a save point
        yield (epoch := _finish_epoch(recipe, state, frames))
        if epoch.ended:
            return


def validate(recipe: Recipe, state: State, frames: Frames) -> tuple[Evaluation, list[sheets.SheetRow]]:
    """All validation frames scored, equal on every process, and on rank 0 the fixed frames as sheet rows."""
    return _evaluate(recipe, state, frames), _draw_fixed(recipe, state, frames)


def _evaluate(recipe: Recipe, state: State, frames: Frames) -> Evaluation:
    """The validation frames as the predictor scores on them: scores equal on every process, all frames on rank 0."""
    if distributed.is_main():
        _recompute_batchnorm(recipe, state, frames)
    # Batch-norm statistics are each rank's own until the next forward pass; rank 0's are the ones that are saved.
    # A list, not a set: all ranks must broadcast in one order.
    for buffer in dict.fromkeys([*state.model.buffers(), *state.predictor.buffers()]):
        distributed.copy_from_main(buffer)
    protocol = protocols.of(recipe)
    precision = Precision.of_evaluation(recipe, state.device)
    evaluation = evaluate(
        in_metres(state.predictor, recipe.data),
        frames.val_batches(),
        protocol=protocol,
        device=state.device,
        precision=precision,
        everywhere=False,
        passes=Passes.of(recipe.eval),
    )
    if recipe.eval.monitor not in (scores := evaluation.scores()):
        possible = [name for name in scores if name in get_args(Monitor)]
        raise UsageError(
            f"eval.monitor={recipe.eval.monitor} is not scored here: these frames and this network under protocol "
            f"{protocol.name} have {', '.join(possible)}; set eval.monitor to one of them"
        )
    return evaluation


def _draw_fixed(recipe: Recipe, state: State, frames: Frames) -> list[sheets.SheetRow]:
    """On rank 0 the fixed validation frames as sheet rows."""
    if not distributed.is_main():
        return []
    fixed = eval_batches(frames.source, frames.fixed_frames(), protocols.scored_data(recipe), batch_size=1)
    passes = Passes.of(recipe.eval)
    network = in_metres(state.predictor, recipe.data)
    return sheet_rows(network, fixed, protocol=protocols.of(recipe), device=state.device, passes=passes)


def _enter_epoch(recipe: Recipe, state: State) -> bool:
    """Freeze what is frozen in the epoch, and start a phase; True where other parameters train than before."""
    at = state.position
    changed = state.freezing.apply(at.epoch)
    # The second phase has a fresh optimiser; a run resumed later in it keeps the one it saved.
    if recipe.finetune.epochs and at.epoch == state.phases.first and at.step_in_epoch == 0:
        state.restart_optimiser(recipe.finetune.lr)
    return changed


def _recompute_batchnorm(recipe: Recipe, state: State, frames: Frames) -> None:
    """Statistics of batch norm for weights averaged by SWA, before these are scored and saved."""
    section, data = recipe.optim, recipe.data
    if section.average != "swa" or section.swa_batchnorm == "averaged" or state.predictor is state.model:
        return
    at = state.position
    seed_step(recipe.seed, at.step)
    batches = (
        to_device(batch, state.device, min_depth=data.min_depth, max_depth=data.max_depth)
        for batch in frames.statistics_batches(at.epoch)
    )
    recompute_batchnorm(state.predictor, batches, frozen=state.freezing.norms())


def _train_epoch(recipe: Recipe, state: State, frames: Frames, objective: Objective) -> Iterator[Event]:
    """The steps of one epoch from the state's position."""
    at = state.position
    meter = ThroughputMeter(recipe)
    stepper = Stepper(recipe, state, objective, steps_per_epoch=frames.steps_per_epoch)
    batches = frames.train_epoch(at.epoch, first_step=at.step_in_epoch)
    for _ in range(at.step_in_epoch, frames.steps_per_epoch):
        started = time.perf_counter()
        # Timed apart: the progress line separates waiting for data from computing.
        micro_batches = next(batches)
        waited = time.perf_counter() - started
        lr = _learning_rate(recipe, state, frames, step=at.step)
        momentum = schedule.momentum(recipe, at.step, steps_per_epoch=frames.steps_per_epoch, ended=at.first_phase)
        results = stepper.step(micro_batches, lr, momentum)
        at.step += 1
        at.step_in_epoch += 1
        last, save_due = at.step_in_epoch == frames.steps_per_epoch, _save_due(recipe, at.step_in_epoch)
        # What is saved counts all its steps. The first is reported at once: whoever watches knows that training runs.
        if last or save_due or at.step == 1 or any(result.stop or result.save for result in results):
            results += stepper.settle()
        stop, save = any(result.stop for result in results), any(result.save for result in results)
        at.seconds += time.perf_counter() - started
        meter.add(results, lr=lr, waited=waited, took=time.perf_counter() - started)
        if meter.due or last or at.step == 1:
            yield meter.interval(state, frames.steps_per_epoch)
        if stop and not last:
            yield SavePoint(_stop_reason(state))
            return
        # A requested save may not wait for validation: the node that asks for it can be gone by then.
        if save or (save_due and not last):
            yield SavePoint(requested=save)


def _save_due(recipe: Recipe, step_in_epoch: int) -> bool:
    every = recipe.train.save_every_steps
    return every > 0 and step_in_epoch % every == 0


def _finish_epoch(recipe: Recipe, state: State, frames: Frames) -> Epoch:
    """Score the epoch and move the position to the next one."""
    at = state.position
    started = time.perf_counter()
    evaluation, rows = validate(recipe, state, frames)
    scores = evaluation.scores() | evaluation.scores_by_set()
    train_loss = at.loss_sum / at.good_steps if at.good_steps else math.nan
    lr = _learning_rate(recipe, state, frames, step=at.step - 1)  # of the last step that was taken
    metrics = {**scores, "train_loss": train_loss, "lr": lr, "bad_steps": float(at.bad_steps)}
    at.epoch += 1
    at.step_in_epoch, at.loss_sum, at.good_steps = 0, 0.0, 0
    state.plateau.update(_keep_best(recipe, state, scores))
    at.seconds += time.perf_counter() - started
    metrics["seconds"] = at.seconds
    note = _end_first_phase(recipe, state)
    finished = _finish_reason(recipe, state)
    # Clocks differ between ranks, so rank 0 decides for all.
    stopped = not finished and distributed.broadcast(state.should_stop())
    ended = _stop_reason(state) if stopped else finished
    intervals = partial(_with_intervals, evaluation, recipe) if distributed.is_main() else None
    return Epoch(at.epoch, at.step, metrics, rows, ended=ended, stopped=stopped, note=note, intervals=intervals)


def _score_start(recipe: Recipe, state: State, frames: Frames, *, ended: str = "") -> Epoch:
    """Epoch 0: the weights that the run starts from, scored, to predict with, to train, and to compare with later.

    A checkpoint of the run like any other, but no epoch: patience and plateau count from the first that is trained.
    """
    started = time.perf_counter()
    evaluation = _evaluate(recipe, state, frames)
    if state.can_predict and recipe.eval.zero_shot:
        own = {VALIDATION: FrameScores.of(evaluation, recipe.eval.monitor)}
        state.before = own | score_further(recipe, state.predictor, frames, state.device)
    further = {path: scores.means() for path, scores in state.before.items() if path != VALIDATION}
    rows = _draw_fixed(recipe, state, frames)
    state.position.seconds += time.perf_counter() - started
    # The keys of a trained epoch, so that every reader of progress finds them.
    rest = {"train_loss": math.nan, "lr": 0.0, "bad_steps": 0.0, "seconds": state.position.seconds}
    intervals = partial(_with_intervals, evaluation, recipe) if distributed.is_main() else None
    scores = evaluation.scores() | evaluation.scores_by_set()
    return Epoch(0, 0, {**scores, **rest}, rows, further, ended=ended, intervals=intervals)


def _with_intervals(evaluation: Evaluation, recipe: Recipe) -> ProtocolScores:
    """The usual scores of validation frames with their intervals."""
    scores = FrameScores.of(evaluation, recipe.eval.monitor)
    metrics: dict[str, MeanAndEnds] = {
        each.metric: (each.after.mean, each.after.low, each.after.high) for each in compare(None, scores)
    }
    scenes = len(set(scores.scenes))
    return ProtocolScores(evaluation.protocol.name, "", "val", len(scores.ids), scenes, finite(metrics))


def _keep_best(recipe: Recipe, state: State, scores: dict[str, float]) -> float:
    """The rank key of the monitored score (lower is better), kept in the position if it is the best so far."""
    at = state.position
    key = rank_key(recipe.eval.monitor, scores[recipe.eval.monitor])
    if key < at.best:
        at.best, at.best_epoch = key, at.epoch
    if key < at.mark - recipe.train.min_delta:
        at.mark, at.mark_epoch = key, at.epoch
    return key


def _end_first_phase(recipe: Recipe, state: State) -> str:
    """End the first of two phases where its patience is over, and say so; the second begins with the next epoch."""
    at = state.position
    if not recipe.finetune.epochs or recipe.train.patience_ends == "run" or at.epoch >= state.phases.first:
        return ""
    reason = _patience_reason(recipe, state)
    if not reason:
        return ""
    at.first_phase = at.epoch
    return f"the second phase starts: {reason}"


def _finish_reason(recipe: Recipe, state: State) -> str:
    """Why the epoch just finished is the last of the run; "" if it is not."""
    at, phases = state.position, state.phases
    if at.epoch >= phases.epochs:
        return "all epochs done"
    if at.epoch == phases.first and recipe.train.patience_ends == "phase":
        return ""  # the phase is over anyway
    return _patience_reason(recipe, state)


def _patience_reason(recipe: Recipe, state: State) -> str:
    """Why no more is to be expected of the current phase; "" while there is."""
    at, train = state.position, recipe.train
    begun = state.phases.first if train.patience_ends == "phase" and at.epoch > state.phases.first else 0
    better = at.mark_epoch if train.min_delta else at.best_epoch
    if train.patience and at.epoch - max(better, begun) >= train.patience:
        by = f" by {train.min_delta:g}" if train.min_delta else ""
        return f"no better {recipe.eval.monitor}{by} for {train.patience} epochs"
    return ""


def _stop_reason(state: State) -> str:
    return f"time limit of {state.recipe.train.max_minutes:g} minutes" if state.is_out_of_time else "asked to stop"


def _learning_rate(recipe: Recipe, state: State, frames: Frames, *, step: int) -> float:
    return schedule.learning_rate(
        recipe,
        step,
        steps_per_epoch=frames.steps_per_epoch,
        drops=state.plateau.drops,
        ended=state.position.first_phase,
    )
