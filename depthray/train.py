"""The training loop: `fit(recipe, state)` is a generator that yields what happened; the caller logs, saves, reports, stops.

The same loop runs alone, under torchrun and under Ray Train: whatever needs other processes is asked of `distributed`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from depthray import distributed, losses, models, optim, picture
from depthray.batch import Batch, to_device
from depthray.data.frames import Frames
from depthray.errors import DivergedError
from depthray.recipe import Recipe
from depthray.seeding import seed_step
from depthray.state import State
from depthray.validate import validate


@dataclass(frozen=True)
class Interval:
    """What a stretch of steps looked like, for a progress line."""

    epoch: int  # under way, from 1
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    wait_share: float  # of the time, spent waiting for data
    memory_gib: float
    eta_seconds: float
    bad_steps: int


@dataclass(frozen=True)
class SavePoint:
    """A moment inside an epoch worth saving."""

    reason: str  # "" = a regular one


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its scores, and on rank 0 the fixed validation frames for pictures."""

    number: int  # from 1
    step: int
    metrics: dict[str, float]
    frames: list[picture.Row] = field(default_factory=list)
    ended: str = ""  # why training ends with this epoch, if it does


Event = Interval | SavePoint | Epoch


def fit(recipe: Recipe, state: State, frames: Frames) -> Iterator[Event]:
    """Train from the state's position to the recipe's end, yielding intervals, save points and epochs.

    Raises DivergedError after `train.max_bad_steps` non-finite losses in a row, naming the samples of the last batch.
    """
    network = _network(recipe, state)
    epochs = recipe.train.epochs + recipe.finetune.epochs
    while state.position.epoch < epochs:
        _enter_phase(recipe, state)
        yield from _epoch(recipe, state, frames, network)
        if state.position.step_in_epoch < frames.steps_per_epoch:
            return  # stopped inside the epoch, and saved
        yield (epoch := _finish_epoch(recipe, state, frames))
        if epoch.ended:
            return


def _network(recipe: Recipe, state: State) -> nn.Module:
    network = distributed.wrap(state.model, sync_batchnorm=recipe.train.sync_batchnorm)
    return torch.compile(network) if recipe.train.compile else network  # type: ignore[return-value]


def _enter_phase(recipe: Recipe, state: State) -> None:
    at = state.position
    if recipe.finetune.epochs and at.epoch == recipe.train.epochs and at.step_in_epoch == 0:
        state.restart_optimiser(recipe.finetune.lr)


def _epoch(recipe: Recipe, state: State, frames: Frames, network: nn.Module) -> Iterator[Event]:
    """The steps of one epoch from where the state stands."""
    at = state.position
    meter = _Meter(recipe)
    stepper = _Stepper(recipe, state, network)
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
        if meter.due or last:
            yield meter.interval(state, frames.steps_per_epoch)
        if result.stop and not last:
            yield SavePoint(_why_stopped(recipe, state))
            return
        if _save_due(recipe, at.step_in_epoch) and not last:
            yield SavePoint("")


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
    score = scores[recipe.eval.monitor]
    state.plateau.update(score)
    if score < at.best:
        at.best, at.best_epoch = score, at.epoch
    at.seconds += time.perf_counter() - started
    metrics["seconds"] = at.seconds
    return Epoch(at.epoch, at.step, metrics, pictures, ended=_why_ended(recipe, state))


def _why_ended(recipe: Recipe, state: State) -> str:
    at, train = state.position, recipe.train
    if at.epoch >= train.epochs + recipe.finetune.epochs:
        return "all epochs done"
    if train.patience and at.epoch - at.best_epoch >= train.patience:
        return f"no better {recipe.eval.monitor} for {train.patience} epochs"
    if distributed.broadcast(_wants_stop(recipe, state)):
        return _why_stopped(recipe, state)
    return ""


def _wants_stop(recipe: Recipe, state: State) -> bool:
    limit = recipe.train.max_minutes * 60
    return state.stop() or (limit > 0 and state.position.seconds >= limit)


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


@dataclass(frozen=True)
class _Result:
    """One optimiser step, agreed by all processes."""

    loss: float  # mean over the global batch; NaN when skipped
    images: int
    stop: bool


class _Stepper:
    """Runs optimiser steps; a step whose loss or gradient is not finite is skipped and leaves no trace."""

    def __init__(self, recipe: Recipe, state: State, network: nn.Module) -> None:
        self.recipe, self.state, self.network = recipe, state, network
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        self.buffers = [b for b in state.model.buffers() if b.is_floating_point()]
        self.epochs = recipe.train.epochs + recipe.finetune.epochs

    def step(self, micro_batches: list[Batch], lr: float) -> _Result:
        """One optimiser step on this process's share of a global batch."""
        state, at = self.state, self.state.position
        state.model.train()
        seed_step(self.recipe.seed, at.step)
        before = [buffer.clone() for buffer in self.buffers]
        per_image = self._backward(micro_batches)
        state.scaler.unscale_(state.optimiser)
        limit = self.recipe.optim.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.parameters, limit)
        total, bad, stop = self._agree(per_image, norm)
        if bad:
            self._skip(micro_batches, per_image, before)
        else:
            optim.set_learning_rate(state.optimiser, lr)
            state.scaler.step(state.optimiser)
            at.loss_sum, at.good_steps, at.bad_in_row = at.loss_sum + total, at.good_steps + 1, 0
            if state.average is not None:
                state.average.update(state.model, progress=(at.epoch + 1) / self.epochs)
        state.scaler.update()
        state.optimiser.zero_grad(set_to_none=True)
        return _Result(math.nan if bad else total, self.recipe.train.batch_size, stop)

    def _backward(self, micro_batches: list[Batch]) -> Tensor:
        """Backward through the micro-batches; gradients of the mean loss over the global batch; returns (b,) losses."""
        data, losses_seen = self.recipe.data, []
        images = sum(len(batch["id"]) for batch in micro_batches)
        for number, cpu_batch in enumerate(micro_batches, start=1):
            batch = to_device(cpu_batch, self.state.device, min_depth=data.min_depth, max_depth=data.max_depth)
            with distributed.hold_gradients(self.network, hold=number < len(micro_batches)):
                with self.state.precision.autocast():
                    prediction = models.run(self.network, batch)
                per_image, _ = losses.total(prediction, batch, self.recipe.loss)
                self.state.scaler.scale(per_image.sum() / images).backward()  # type: ignore[no-untyped-call]
            losses_seen.append(per_image.detach())
        return torch.cat(losses_seen)

    def _agree(self, per_image: Tensor, norm: Tensor) -> tuple[float, bool, bool]:
        """Mean loss over all processes, whether to skip, whether to stop: one small sum for all three."""
        wants_stop = distributed.is_main() and _wants_stop(self.recipe, self.state)
        control = torch.stack([per_image.double().sum(), per_image.new_tensor(float(wants_stop)).double()])
        distributed.sum_(control)
        total, stop = (control / torch.tensor([self.recipe.train.batch_size, 1.0], device=control.device)).tolist()
        # After the average over processes the norm is the same everywhere, so all skip together. With a scaled loss an
        # overflow of the gradient alone is part of finding the scale, which the scaler handles.
        bad = not math.isfinite(total) or not (self.state.precision.scaled or bool(torch.isfinite(norm)))
        return total, bad, stop > 0

    def _skip(self, micro_batches: list[Batch], per_image: Tensor, before: list[Tensor]) -> None:
        at = self.state.position
        for buffer, old in zip(self.buffers, before, strict=True):
            buffer.copy_(old)
        at.bad_steps += 1
        at.bad_in_row += 1
        if at.bad_in_row >= self.recipe.train.max_bad_steps:
            ids = [name for batch in micro_batches for name in batch["id"]]
            culprits = [name for name, loss in zip(ids, per_image.tolist(), strict=True) if not math.isfinite(loss)]
            named = distributed.gather(culprits) or distributed.gather(ids)
            raise DivergedError(
                f"the loss was not finite for {at.bad_in_row} steps in a row, last at step {at.step}, on the samples "
                f"{', '.join(named)}; try a lower optim.lr, optim.clip_norm=1 or train.precision=fp32"
            )


class _Meter:
    """Adds steps up to the next progress line."""

    def __init__(self, recipe: Recipe) -> None:
        self.every = recipe.train.log_seconds
        self._restart()

    def _restart(self) -> None:
        self.since = time.perf_counter()
        self.losses: list[float] = []
        self.images, self.waited, self.took, self.lr = 0, 0.0, 0.0, 0.0

    def add(self, result: _Result, *, lr: float, waited: float, took: float) -> None:
        """Count one step."""
        if math.isfinite(result.loss):
            self.losses.append(result.loss)
        self.images += result.images
        self.waited += waited
        self.took += took
        self.lr = lr

    @property
    def due(self) -> bool:
        """Whether a line is due."""
        return time.perf_counter() - self.since >= self.every

    def interval(self, state: State, steps_per_epoch: int) -> Interval:
        """The line since the last one."""
        at, recipe = state.position, state.recipe
        epochs = recipe.train.epochs + recipe.finetune.epochs
        steps = epochs * steps_per_epoch
        line = Interval(
            epoch=at.epoch + 1,
            epochs=epochs,
            step=at.step,
            steps=steps,
            loss=sum(self.losses) / len(self.losses) if self.losses else math.nan,
            lr=self.lr,
            images_per_second=self.images / self.took,
            wait_share=self.waited / self.took,
            memory_gib=memory_gib(state.device),
            eta_seconds=(steps - at.step) * self.took * recipe.train.batch_size / self.images,
            bad_steps=at.bad_steps,
        )
        self._restart()
        return line


def memory_gib(device: torch.device) -> float:
    """Peak memory of this process: on the GPU if it has one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
