"""The training loop: `fit(recipe, state)` is a generator that yields what happened; the caller logs, saves and reports.

The same loop runs alone, under torchrun and under Ray Train: whatever needs other processes is asked of `distributed`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import nn

from depthray import distributed, losses
from depthray.config.metric_names import rank_key
from depthray.config.sections import Monitor, Recipe
from depthray.data.loader import eval_batches
from depthray.errors import UsageError
from depthray.evaluation.evaluate import evaluate, pictures
from depthray.evaluation.protocols import PROTOCOLS
from depthray.imaging import sheets
from depthray.training import optim
from depthray.training.frames import Frames
from depthray.training.state import State
from depthray.training.step import Stepper, wants_stop
from depthray.training.throughput import Interval, ThroughputMeter

pass


@dataclass(frozen=True)
class SavePoint:
    """A moment inside an epoch worth saving."""

    reason: str  # "" = a regular one
    asked: bool = False  # from outside, which waits for it


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its scores, and on rank 0 the fixed validation frames for pictures."""

    number: int  # from 1
    step: int
    metrics: dict[str, float]
    frames: list[sheets.SheetRow] = field(default_factory=list)
    ended: str = ""  # why training ends with this epoch, if it does
    stopped: bool = False  # it ends early, as requested or by the time limit, and can be resumed


Event = Interval | SavePoint | Epoch


def fit(recipe: Recipe, state: State, frames: Frames) -> Iterator[Event]:
    """Train from the state's position to the recipe's end, yielding intervals, save points and epochs.

    Raises DivergedError after `train.max_bad_steps` non-finite losses in a row, naming the samples of the last batch.
    """
    epochs = recipe.train.epochs + recipe.finetune.epochs
    if not epochs:
        yield _untrained(recipe, state, frames)
        return
    network = _network(recipe, state)
    while state.position.epoch < epochs:
        _enter_phase(recipe, state)
        yield from _epoch(recipe, state, frames, network)
        if state.position.step_in_epoch < frames.steps_per_epoch:
            return  # stopped inside the epoch, and saved
        yield (epoch := _finish_epoch(recipe, state, frames))
        if epoch.ended:
            return


def _network(recipe: Recipe, state: State) -> nn.Module:
    given: tuple[str, ...] = getattr(state.model, "gives", ("depth",))
    unread = losses.unused_outputs(given, recipe.loss)
    network = distributed.wrap(state.model, sync_batchnorm=recipe.train.sync_batchnorm, unread=unread)
    return torch.compile(network) if recipe.train.compile else network  # type: ignore[return-value]


def _enter_phase(recipe: Recipe, state: State) -> None:
    at = state.position
    if recipe.finetune.epochs and at.epoch == recipe.train.epochs and at.step_in_epoch == 0:
        state.restart_optimiser(recipe.finetune.lr)


def _epoch(recipe: Recipe, state: State, frames: Frames, network: nn.Module) -> Iterator[Event]:
    """The steps of one epoch from where the state stands."""
    at = state.position
    meter = ThroughputMeter(recipe)
    stepper = Stepper(recipe, state, network, steps_per_epoch=frames.steps_per_epoch)
    batches = frames.train_epoch(at.epoch, first_step=at.step_in_epoch)
    for _ in range(at.step_in_epoch, frames.steps_per_epoch):
        started = time.perf_counter()
        micro_batches = next(batches)
        waited = time.perf_counter() - started
        lr = learning_rate(recipe, state, frames.steps_per_epoch)
        result = stepper.step(micro_batches, lr)
        at.step += 1
        at.step_in_epoch += 1
        at.seconds += time.perf_counter() - started
        meter.add(result, lr=lr, waited=waited, took=time.perf_counter() - started)
        last = at.step_in_epoch == frames.steps_per_epoch
        if meter.due or last or at.step == 1:  # the first step is told at once: whoever watches knows that it runs
            yield meter.interval(state, frames.steps_per_epoch)
        if result.stop and not last:
            yield SavePoint(_why_stopped(recipe, state))
            return
        # Who asks for a save point may be gone before validation ends; the others can wait for the epoch's checkpoint.
        if result.save or (_save_due(recipe, at.step_in_epoch) and not last):
            yield SavePoint("", asked=result.save)


def _save_due(recipe: Recipe, step_in_epoch: int) -> bool:
    every = recipe.train.save_every_steps
    return every > 0 and step_in_epoch % every == 0


def _finish_epoch(recipe: Recipe, state: State, frames: Frames) -> Epoch:
    at = state.position
    started = time.perf_counter()
    scores, pictures = validate(recipe, state, frames)
    train_loss = at.loss_sum / at.good_steps if at.good_steps else math.nan
    lr = learning_rate(recipe, state, frames.steps_per_epoch, step=at.step - 1)
    metrics = {**scores, "train_loss": train_loss, "lr": lr, "bad_steps": float(at.bad_steps)}
    at.epoch += 1
    at.step_in_epoch, at.loss_sum, at.good_steps = 0, 0.0, 0
    state.plateau.update(_rank(recipe, state, scores))
    at.seconds += time.perf_counter() - started
    metrics["seconds"] = at.seconds
    ended = _why_finished(recipe, state)
    if not ended and (stopped := distributed.broadcast(wants_stop(recipe, state))):
        return Epoch(at.epoch, at.step, metrics, pictures, ended=_why_stopped(recipe, state), stopped=stopped)
    return Epoch(at.epoch, at.step, metrics, pictures, ended=ended)


def _untrained(recipe: Recipe, state: State, frames: Frames) -> Epoch:
    """Epoch 0, of a run without any other: the weights as they came, scored, to be predicted with or trained on."""
    started = time.perf_counter()
    scores, pictures = validate(recipe, state, frames)
    _rank(recipe, state, scores)
    state.position.seconds += time.perf_counter() - started
    rest = {"train_loss": math.nan, "lr": 0.0, "bad_steps": 0.0, "seconds": state.position.seconds}
    return Epoch(0, 0, {**scores, **rest}, pictures, ended="no epochs asked for")


def _rank(recipe: Recipe, state: State, scores: dict[str, float]) -> float:
    """The badness of the position's scores, kept if it is the best so far."""
    at = state.position
    score = rank_key(recipe.eval.monitor, scores[recipe.eval.monitor])
    if score < at.best:
        at.best, at.best_epoch = score, at.epoch
    return score


def _why_finished(recipe: Recipe, state: State) -> str:
    """Why nothing is left to train, "" where something is."""
    at, train = state.position, recipe.train
    if at.epoch >= train.epochs + recipe.finetune.epochs:
        return "all epochs done"
    if train.patience and at.epoch - at.best_epoch >= train.patience:
        return f"no better {recipe.eval.monitor} for {train.patience} epochs"
    return ""


def _why_stopped(recipe: Recipe, state: State) -> str:
    limit = recipe.train.max_minutes
    return f"time limit of {limit:g} minutes" if limit and state.position.seconds >= limit * 60 else "asked to stop"


def learning_rate(recipe: Recipe, state: State, steps_per_epoch: int, *, step: int | None = None) -> float:
    """The learning rate of a step (the next one if not given), a pure function of position and plateau drops."""
    step = state.position.step if step is None else step
    first = recipe.train.epochs * steps_per_epoch
    if recipe.finetune.epochs and step >= first:
        schedule, lr, epochs, step = recipe.finetune.schedule, recipe.finetune.lr, recipe.finetune.epochs, step - first
    else:
        schedule, lr, epochs = recipe.optim.schedule, recipe.optim.lr, recipe.train.epochs
    return optim.learning_rate(
        recipe.optim,
        schedule=schedule,
        lr=lr,
        step=step,
        total_steps=epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        drops=state.plateau.drops,
    )


def validate(recipe: Recipe, state: State, frames: Frames) -> tuple[dict[str, float], list[sheets.SheetRow]]:
    """Metrics over all validation frames, equal on every process, and on rank 0 the fixed frames as pictures."""
    # Batch-norm statistics are each rank's own until the next forward pass; rank 0's are the ones that are saved.
    # In one order on all ranks: a set would have another on each.
    for buffer in dict.fromkeys([*state.model.buffers(), *state.predictor.buffers()]):
        distributed.copy_from_main(buffer)
    protocol = PROTOCOLS[recipe.eval.protocol]
    found = evaluate(state.predictor, frames.val_batches(), protocol=protocol, device=state.device)
    scores = found.scores()
    known = [name for name in scores if name in get_args(Monitor)]
    if recipe.eval.monitor not in scores:
        raise UsageError(
            f"eval.monitor={recipe.eval.monitor} is not scored here: these frames and this network under protocol "
            f"{protocol.name} have {', '.join(known)}; set eval.monitor to one of them"
        )
    rows: list[sheets.SheetRow] = []
    if distributed.is_main():
        fixed = eval_batches(frames.source, frames.fixed(), recipe.data, batch_size=1)
        rows = pictures(state.predictor, fixed, protocol=protocol, device=state.device)
    return scores, rows
