"""One optimiser step on a global batch: forward, backward, agreement of all processes, update or skip."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from depthray import distributed, models
from depthray.batch import Batch
from depthray.config.sections import Recipe
from depthray.data.curriculum import loss_at
from depthray.data.mixing import data_sets
from depthray.errors import DivergedError
from depthray.training import optim
from depthray.training.state import State
from depthray.training.steps.batch_transfer import BatchTransfer
from depthray.training.steps.host_copy import HostCopy
from depthray.training.steps.kept_buffers import KeptBuffers
from depthray.training.steps.objective import Objective

# In a row. Each halves the scale, which begins at 2**16: what overflows still has diverged, and no scale ends that.
MOST_OVERFLOWS = 32


@dataclass(frozen=True)
class StepResult:
    """One optimiser step, agreed by all processes."""

    loss: float  # mean over the global batch; NaN when skipped
    stop: bool
    save: bool = False  # a save point was requested


@dataclass(frozen=True)
class _LaunchedStep:
    """A step whose numbers the host has not read yet."""

    number: int
    names: list[str]  # of this process's samples
    per_image: Tensor  # (B,) their losses
    words: HostCopy  # loss summed over all images, stop and save requests, norm of the gradient


class Stepper:
    """Runs optimiser steps; a step whose loss or gradient is not finite is skipped and leaves no trace.

    `late` (by default on a GPU): the device decides what to skip, and the host reads the numbers of a step only after
    it has queued the next one, so that neither waits for the other.
    """

    def __init__(
        self, recipe: Recipe, state: State, objective: Objective, *, steps_per_epoch: int, late: bool | None = None
    ) -> None:
        self.recipe, self.state, self.objective = recipe, state, objective
        self.late = state.device.type != "cpu" if late is None else late
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        self.still = list(state.freezing.norms().values())
        self.steps = state.phases.epochs * steps_per_epoch
        self.kept = KeptBuffers(state.model)
        data, sections = recipe.data, data_sets.losses_of(recipe)
        self.sections = sections if len(set(sections)) > 1 else sections[:1]
        self.transfer = BatchTransfer(state.device, min_depth=data.min_depth, max_depth=data.max_depth)
        self._launched: _LaunchedStep | None = None
        self._set_training()  # once an epoch: walking over all modules takes as long as many of the calls of a step

    def step(self, micro_batches: list[Batch], lr: float, momentum: float | None = None) -> list[StepResult]:
        """One optimiser step on this process's share of a global batch; the results known by now.

        That is the step's own, or where results are read late, the one before: `settle` returns what is missing.
        """
        state, at = self.state, self.state.position
        if not state.model.training:
            self._set_training()
        seed_step(self.recipe.seed, at.step)
        # Batch-norm statistics change in the forward pass already: a skipped step must undo that.
        self.kept.keep()
        per_image = self._backward(micro_batches)
        state.scaler.unscale_(state.optimiser)
        norm = nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)
        if self.recipe.optim.clip_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.optim.clip_norm, norm)
        words = self._agree(per_image, norm)
        before, names = self._launched, [name for batch in micro_batches for name in batch["id"]]
        self._launched = _LaunchedStep(at.step, names, per_image, HostCopy(words))
        # After the average over processes the norm is the same everywhere, so all skip together.
        finite = torch.isfinite(words).all()
        self._update(~finite if self.late else not bool(finite), lr, momentum)
        if self.late:
            return [self._count(before)] if before else []
        return self.settle()

    def settle(self) -> list[StepResult]:
        """Wait for the last step, if it has not been read yet: then the position counts all steps."""
        launched, self._launched = self._launched, None
        return [self._count(launched)] if launched else []

    def _set_training(self) -> None:
        self.state.model.train()
        for layer in self.still:
            layer.eval()

    def _backward(self, micro_batches: list[Batch]) -> Tensor:
        """Micro-batches (b,C,H,W) -> (B,) loss of each image; gradients are of the mean over the global batch."""
        epoch, curriculum = self.state.position.epoch, self.recipe.curriculum
        section, *others = (loss_at(epoch, curriculum, last=each) for each in self.sections)
        images = sum(len(batch["id"]) for batch in micro_batches)
        for batch in micro_batches:
            models.check_ids(self.state.model, batch)
        # A generator: each micro-batch is moved when its turn comes, and freed after it.
        moved = (self.transfer(batch) for batch in micro_batches)
        sections = (section, *others) if others else section
        return self.objective.backward(moved, sections, parts=len(micro_batches), images=images)

    def _agree(self, per_image: Tensor, norm: Tensor) -> Tensor:
        """(4,) loss summed over all processes, requests to stop and to save, norm: one small sum for all of them."""
        state = self.state
        total = functional.pad(per_image.double().sum()[None], (0, 2))
        stop = distributed.is_main() and state.should_stop()
        for place, requested in ((1, stop), (2, state.hooks.save_requested())):
            if requested:
                total[place].fill_(1)  # not copied from the host, for which that would wait
        return torch.cat([distributed.sum_(total), norm.double()[None]])

    def _update(self, skip: bool | Tensor, lr: float, momentum: float | None) -> None:
        """Update weights and their average, or undo the step: `skip` is a bool, or () bool on the device."""
        state = self.state
        optim.set_learning_rate(state.optimiser, lr)
        optim.set_momentum(state.optimiser, momentum)
        optim.take_step(state.optimiser, skip)
        state.scaler.update()  # where it found an overflow, to a lower scale
        self.kept.restore(skip)
        if state.average is not None:
            state.average.update(state.model, progress=state.position.step / self.steps, skip=skip)
        state.optimiser.zero_grad(set_to_none=True)

    def _count(self, step: _LaunchedStep) -> StepResult:
        """Count a step in the position. Raises DivergedError, naming samples, when too many in a row were bad."""
        at = self.state.position
        total, stop, save, norm = step.words.read()
        mean_loss = total / self.recipe.train.batch_size
        if math.isfinite(mean_loss) and math.isfinite(norm):
            at.loss_sum, at.good_steps = at.loss_sum + mean_loss, at.good_steps + 1
            at.bad_in_row = at.overflows_in_row = 0
            return StepResult(mean_loss, stop > 0, save > 0)
        # With a scaled loss an overflow of the gradient alone is a part of finding the scale: counted apart.
        if self.state.precision.scaled and math.isfinite(mean_loss) and at.overflows_in_row < MOST_OVERFLOWS:
            at.overflow_steps, at.overflows_in_row = at.overflow_steps + 1, at.overflows_in_row + 1
            return StepResult(math.nan, stop > 0, save > 0)
        at.bad_steps += 1
        at.bad_in_row += 1
        if at.bad_in_row >= self.recipe.train.max_bad_steps:
            losses = zip(step.names, step.per_image.tolist(), strict=True)
            culprits = [name for name, loss in losses if not math.isfinite(loss)]
            named = distributed.gather(culprits) or distributed.gather(step.names)
            raise DivergedError(
                f"the loss or its gradient was not finite for {at.bad_in_row} steps in a row, last at step "
                f"{step.number}, on the samples {', '.join(named)}; try a lower optim.lr, optim.clip_norm=1 or "
                "train.precision=fp32"
            )
        return StepResult(math.nan, stop > 0, save > 0)


def seed_step(seed: int, step: int) -> None:
    """Seed this process's torch generators for one step: dropout is a function of (seed, step, rank).

    So resuming needs no saved generator.
    """
    high, low = np.random.SeedSequence([seed, step, distributed.rank()]).generate_state(2)
    torch.manual_seed(int(high) << 32 | int(low))
