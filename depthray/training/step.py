"""One optimiser step on a global batch: forward, backward, agreement of all processes, update or skip."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from depthray import distributed, losses, models
from depthray.batch import Batch, to_device
from depthray.config.sections import Recipe
from depthray.data.curriculum import loss_at
from depthray.errors import DivergedError
from depthray.training import optim
from depthray.training.state import State

# In a row. Each halves the scale, which begins at 2**16: what overflows still has diverged, and no scale ends that.
MOST_OVERFLOWS = 32


@dataclass(frozen=True)
class StepResult:
    """One optimiser step, agreed by all processes."""

    loss: float  # mean over the global batch; NaN when skipped
    stop: bool
    save: bool = False  # a save point was requested


class Stepper:
    """Runs optimiser steps; a step whose loss or gradient is not finite is skipped and leaves no trace."""

    def __init__(self, recipe: Recipe, state: State, network: nn.Module, *, steps_per_epoch: int) -> None:
        self.recipe, self.state, self.network = recipe, state, network
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        self.buffers = [b for b in state.model.buffers() if b.is_floating_point()]
        self.still = list(state.freezing.norms().values())
        self.steps = state.phases.epochs * steps_per_epoch

    def step(self, micro_batches: list[Batch], lr: float, momentum: float | None = None) -> StepResult:
        """One optimiser step on this process's share of a global batch."""
        state, at = self.state, self.state.position
        state.model.train()
        for layer in self.still:
            layer.eval()
        seed_step(self.recipe.seed, at.step)
        # Batch-norm statistics change in the forward pass already: a skipped step must undo that.
        before = [buffer.clone() for buffer in self.buffers]
        per_image = self._backward(micro_batches)
        state.scaler.unscale_(state.optimiser)
        norm = nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)
        if self.recipe.optim.clip_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.optim.clip_norm, norm)
        mean_loss, bad, stop, save = self._agree(per_image, norm)
        if bad:
            state.scaler.update()  # to a lower scale, where the gradient overflowed
            self._skip(micro_batches, per_image, before, mean_loss=mean_loss)
        else:
            optim.set_learning_rate(state.optimiser, lr)
            optim.set_momentum(state.optimiser, momentum)
            state.scaler.step(state.optimiser)
            state.scaler.update()
            at.loss_sum, at.good_steps = at.loss_sum + mean_loss, at.good_steps + 1
            at.bad_in_row = at.overflows_in_row = 0
            if state.average is not None:
                state.average.update(state.model, progress=at.step / self.steps)
        state.optimiser.zero_grad(set_to_none=True)
        return StepResult(math.nan if bad else mean_loss, stop, save)

    def _backward(self, micro_batches: list[Batch]) -> Tensor:
        """Micro-batches (b,C,H,W) -> (B,) loss of each image; gradients are of the mean over the global batch."""
        data, per_image = self.recipe.data, []
        section = loss_at(self.state.position.epoch, self.recipe.curriculum, last=self.recipe.loss)
        images = sum(len(batch["id"]) for batch in micro_batches)
        for number, cpu_batch in enumerate(micro_batches, start=1):
            models.check_ids(self.state.model, cpu_batch)
            batch = to_device(cpu_batch, self.state.device, min_depth=data.min_depth, max_depth=data.max_depth)
            # Gradients travel between processes once a step, with the last micro-batch.
            with distributed.hold_gradients(self.network, hold=number < len(micro_batches)):
                with self.state.precision.autocast():
                    prediction = models.run(self.network, batch)
                loss, _ = losses.total(prediction, batch, section)  # (b,)
                self.state.scaler.scale(loss.sum() / images).backward()  # type: ignore[no-untyped-call]
            per_image.append(loss.detach())
        return torch.cat(per_image)

    def _agree(self, per_image: Tensor, norm: Tensor) -> tuple[float, bool, bool, bool]:
        """Mean loss over all processes, whether to skip, to stop, to save: one small sum for all four."""
        stop_here = distributed.is_main() and self.state.should_stop()
        requests = [float(stop_here), float(self.state.hooks.save_requested())]
        control = torch.cat([per_image.double().sum()[None], per_image.new_tensor(requests, dtype=torch.float64)])
        distributed.sum_(control)
        total, stop, save = control.tolist()
        mean_loss = total / self.recipe.train.batch_size
        # After the average over processes the norm is the same everywhere, so all skip together.
        bad = not math.isfinite(mean_loss) or not bool(torch.isfinite(norm))
        return mean_loss, bad, stop > 0, save > 0

    def _skip(self, micro_batches: list[Batch], per_image: Tensor, before: list[Tensor], *, mean_loss: float) -> None:
        """Undo the step and count it; DivergedError, naming samples, when too many in a row were bad."""
        at = self.state.position
        for buffer, old in zip(self.buffers, before, strict=True):
            buffer.copy_(old)
        # With a scaled loss an overflow of the gradient alone is a part of finding the scale: counted apart.
        if self.state.precision.scaled and math.isfinite(mean_loss) and at.overflows_in_row < MOST_OVERFLOWS:
            at.overflow_steps, at.overflows_in_row = at.overflow_steps + 1, at.overflows_in_row + 1
            return
        at.bad_steps += 1
        at.bad_in_row += 1
        if at.bad_in_row >= self.recipe.train.max_bad_steps:
            ids = [name for batch in micro_batches for name in batch["id"]]
            culprits = [name for name, loss in zip(ids, per_image.tolist(), strict=True) if not math.isfinite(loss)]
            named = distributed.gather(culprits) or distributed.gather(ids)
            raise DivergedError(
                f"the loss or its gradient was not finite for {at.bad_in_row} steps in a row, last at step {at.step}, "
                f"on the samples {', '.join(named)}; try a lower optim.lr, optim.clip_norm=1 or train.precision=fp32"
            )


def seed_step(seed: int, step: int) -> None:
    """Seed this process's torch generators for one step: dropout is a function of (seed, step, rank).

    So resuming needs no saved generator.
    """
    high, low = np.random.SeedSequence([seed, step, distributed.rank()]).generate_state(2)
    torch.manual_seed(int(high) << 32 | int(low))
