"""One optimiser step on a global batch: forward, backward, agreement of all processes, update or skip."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from depthray import distributed, losses, models
from depthray.batch import Batch, to_device
from depthray.config.sections import Recipe
from depthray.data.curriculum import loss_at
from depthray.errors import DivergedError
from depthray.training import optim
from depthray.training.seeding import seed_step
from depthray.training.state import State


@dataclass(frozen=True)
class StepResult:
    """One optimiser step, agreed by all processes."""

    loss: float  # mean over the global batch; NaN when skipped
    stop: bool
    save: bool = False  # somebody outside asks for a save point


class Stepper:
    """Runs optimiser steps; a step whose loss or gradient is not finite is skipped and leaves no trace."""

    def __init__(self, recipe: Recipe, state: State, network: nn.Module, *, steps_per_epoch: int) -> None:
        self.recipe, self.state, self.network = recipe, state, network
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        self.buffers = [b for b in state.model.buffers() if b.is_floating_point()]
        self.steps = (recipe.train.epochs + recipe.finetune.epochs) * steps_per_epoch

    def step(self, micro_batches: list[Batch], lr: float) -> StepResult:
        """One optimiser step on this process's share of a global batch."""
        state, at = self.state, self.state.position
        state.model.train()
        seed_step(self.recipe.seed, at.step)
        before = [buffer.clone() for buffer in self.buffers]
        per_image = self._backward(micro_batches)
        state.scaler.unscale_(state.optimiser)
        norm = nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)
        if self.recipe.optim.clip_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.optim.clip_norm, norm)
        total, bad, stop, save = self._agree(per_image, norm)
        if bad:
            self._skip(micro_batches, per_image, before)
        else:
            optim.set_learning_rate(state.optimiser, lr)
            state.scaler.step(state.optimiser)
            at.loss_sum, at.good_steps, at.bad_in_row = at.loss_sum + total, at.good_steps + 1, 0
            if state.average is not None:
                state.average.update(state.model, progress=at.step / self.steps)
        state.scaler.update()
        state.optimiser.zero_grad(set_to_none=True)
        return StepResult(math.nan if bad else total, stop, save)

    def _backward(self, micro_batches: list[Batch]) -> Tensor:
        """Backward through the micro-batches; gradients of the mean loss over the global batch; returns (b,) losses."""
        data, losses_seen = self.recipe.data, []
        section = loss_at(self.state.position.epoch, self.recipe.curriculum, last=self.recipe.loss)
        images = sum(len(batch["id"]) for batch in micro_batches)
        for number, cpu_batch in enumerate(micro_batches, start=1):
            models.check_ids(self.state.model, cpu_batch)
            batch = to_device(cpu_batch, self.state.device, min_depth=data.min_depth, max_depth=data.max_depth)
            with distributed.hold_gradients(self.network, hold=number < len(micro_batches)):
                with self.state.precision.autocast():
                    prediction = models.run(self.network, batch)
                per_image, _ = losses.total(prediction, batch, section)
                self.state.scaler.scale(per_image.sum() / images).backward()  # type: ignore[no-untyped-call]
            losses_seen.append(per_image.detach())
        return torch.cat(losses_seen)

    def _agree(self, per_image: Tensor, norm: Tensor) -> tuple[float, bool, bool, bool]:
        """Mean loss over all processes, whether to skip, to stop, to save: one small sum for all four."""
        stopping = distributed.is_main() and wants_stop(self.recipe, self.state)
        wishes = per_image.new_tensor([float(stopping), float(self.state.outside.save())], dtype=torch.float64)
        control = torch.cat([per_image.double().sum()[None], wishes])
        distributed.sum_(control)
        total, stop, save = control.tolist()
        total /= self.recipe.train.batch_size
        # After the average over processes the norm is the same everywhere, so all skip together. With a scaled loss an
        # overflow of the gradient alone is part of finding the scale, which the scaler handles.
        bad = not math.isfinite(total) or not (self.state.precision.scaled or bool(torch.isfinite(norm)))
        return total, bad, stop > 0, save > 0

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


def wants_stop(recipe: Recipe, state: State) -> bool:
    """Whether this process would end the run: it was asked to, or the time limit is over."""
    limit = recipe.train.max_minutes * 60
    return state.stop() or (limit > 0 and state.position.seconds >= limit)
