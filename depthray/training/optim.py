"""Optimiser and parameter groups, the learning rate as a pure function of the step, and weight averaging."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from depthray.config.sections import Optim, Recipe, Schedule
from depthray.errors import UsageError
from depthray.training.adan import Adan

Tensors = tuple[Tensor, ...] | list[Tensor]

# Both as torch's OneCycleLR has them by default.
ONECYCLE_RISE = 0.3  # share of the steps, where optim.warmup_steps is 0
ONECYCLE_START = 1 / 25  # of the peak
ENCODER = re.compile(r"(module\.|_orig_mod\.)*encoder\.")  # with the prefixes of DDP and of torch.compile
BETTER = 1e-4  # a score counts as better only if it is lower by this share: noise would delay every drop


def build_optimiser(model: nn.Module, section: Optim, *, lr: float | None = None) -> torch.optim.Optimizer:
    """The optimiser of a recipe over the parameters that learn; `lr` stands in for the section's peak rate."""
    groups = _groups(model, section)
    rate = section.lr if lr is None else lr
    optimiser: torch.optim.Optimizer
    if section.name == "sgd":
        optimiser = torch.optim.SGD(groups, lr=rate, momentum=section.momentum)
    elif section.name == "adan":
        optimiser = Adan(groups, lr=rate)
    else:
        kind = torch.optim.AdamW if section.name == "adamw" else torch.optim.Adam
        optimiser = kind(groups, lr=rate, fused=True)  # the same formula in one pass over memory
        optimiser.register_step_pre_hook(_match_layouts)  # the other optimisers compare strides themselves
    set_learning_rate(optimiser, rate)
    return optimiser


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of the next step; each group takes its own multiple."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["scale"]


def learning_rate(recipe: Recipe, step: int, *, steps_per_epoch: int, drops: int = 0) -> float:
    """The rate of step `step` (from 0) of a run: a pure function of it and of the plateau's `drops`."""
    schedule, peak, step, steps = _phase(recipe, step, steps_per_epoch=steps_per_epoch)
    section = recipe.optim
    if schedule == "onecycle":
        return _onecycle(section, lr=peak, step=step, steps=steps)
    if step < section.warmup_steps:
        # The + 1 gives the first step a rate above 0.
        return peak * (step + 1) / section.warmup_steps
    if schedule == "cosine":
        done = (step - section.warmup_steps) / max(1, steps - section.warmup_steps)
        return _half_cosine(peak, section.min_lr, done)
    if schedule == "step":
        return peak * float(section.step_factor ** (step // steps_per_epoch // section.step_epochs))
    if schedule == "plateau":
        # The inner min: a peak that is below min_lr already is not raised to it.
        return max(peak * float(section.step_factor**drops), min(peak, section.min_lr))
    return peak


def _phase(recipe: Recipe, step: int, *, steps_per_epoch: int) -> tuple[Schedule, float, int, int]:
    """Schedule and peak rate of the phase of a step, the step counted from its start, and the steps it has."""
    first = recipe.train.epochs * steps_per_epoch
    if recipe.finetune.epochs and step >= first:
        section = recipe.finetune  # counted from its own start: it has a warm-up of its own
        return section.schedule, section.lr, step - first, section.epochs * steps_per_epoch
    return recipe.optim.schedule, recipe.optim.lr, step, first


def _onecycle(section: Optim, *, lr: float, step: int, steps: int) -> float:
    """Up from a 25th of the peak over the warm-up steps (else 30 % of all), then down to min_lr, as half cosines."""
    rise = section.warmup_steps or max(1, round(ONECYCLE_RISE * steps))
    if step < rise:
        return _half_cosine(lr * ONECYCLE_START, lr, step / rise)
    return _half_cosine(lr, section.min_lr, (step - rise) / max(1, steps - rise))


def _half_cosine(start: float, end: float, done: float) -> float:
    """Half a cosine from start (done = 0) to end (done = 1, and after)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Plateau:
    """Counts the drops of the rate: one after every `patience` + 1 epochs in a row without a better score."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = math.inf
        self.waited = 0
        self.drops = 0

    def update(self, score: float) -> int:
        """Count an epoch's validation score (lower is better; NaN never is better) and return the drops so far."""
        if score < self.best - (BETTER * abs(self.best) if math.isfinite(self.best) else 0):
            self.best, self.waited = score, 0
            return self.drops
        self.waited += 1
        if self.waited > self.patience:
            self.drops, self.waited = self.drops + 1, 0
        return self.drops

    def state_dict(self) -> dict[str, float]:
        """Plain numbers, for a checkpoint."""
        return {"best": self.best, "waited": self.waited, "drops": self.drops}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from what `state_dict` returned."""
        self.best = float(state["best"])
        self.waited, self.drops = int(state["waited"]), int(state["drops"])


class Average:
    """A second set of weights: the mean over training steps (EMA or SWA), which validates better than the last ones.

    Takes the bare network, not one wrapped for several processes or compiled. Buffers (batch-norm statistics) are
    averaged with the weights.
    """

    def __init__(self, model: nn.Module, section: Optim) -> None:
        self.swa_start = section.swa_start if section.average == "swa" else 0.0
        self.averaged = AveragedModel(model, multi_avg_fn=_averaging(section), use_buffers=True)

    @property
    def count(self) -> int:
        """How many steps are in the average."""
        return int(self.averaged.n_averaged)

    def update(self, model: nn.Module, *, progress: float) -> None:
        """Average in the weights after a step; `progress` is the share of all steps before it. SWA starts later."""
        # SWA's first weights are far from the mean of its last; EMA forgets them by itself.
        if progress >= self.swa_start:
            self.averaged.update_parameters(model)

    def network(self, model: nn.Module) -> nn.Module:
        """The network to validate and save: the average, or the raw one while nothing is averaged."""
        averaged: nn.Module = self.averaged.module
        return averaged if self.count else model

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and how many steps they hold."""
        return {"weights": self.averaged.module.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.averaged.module.load_state_dict(state["weights"])
        self.averaged.n_averaged.fill_(state["count"])


def _averaging(section: Optim) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """The update of an average that already holds `count` steps, as AveragedModel calls it."""

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        share = 1 / (int(count) + 1) if section.average == "swa" else 1 - _decay(section.ema_decay, int(count))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, share)
        else:  # a counter, such as batch norm's: its mean would be no count
            torch._foreach_copy_(averaged, current)

    return update


def _decay(decay: float, count: int) -> float:
    """EMA's decay, growing from 0.1 to `decay`, so that a short run does not keep its first weights."""
    return min(decay, (1 + count) / (10 + count))  # the form of TensorFlow's ExponentialMovingAverage


def _match_layouts(optimiser: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
    """Give gradients and optimiser state the memory layout of their parameters.

    The fused step on a CPU walks all of them in memory order without comparing strides: state that was saved in another
    layout (train.channels_last was changed) would silently be applied to the wrong weights.
    """
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad = _as_layout_of(parameter.grad, parameter)
            state = optimiser.state.get(parameter, {})
            for key, value in state.items():
                state[key] = _as_layout_of(value, parameter)


def _as_layout_of(value: Any, parameter: Tensor) -> Any:
    """A tensor of the parameter's shape -> the same values with its strides; anything else as it is."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter).copy_(value)


def _groups(model: nn.Module, section: Optim) -> list[dict[str, Any]]:
    """Parameters grouped by (multiple of the rate, weight decay); vectors (biases, norms) are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = section.encoder_lr if ENCODER.match(name) else 1.0
            decay = section.weight_decay if parameter.ndim > 1 else 0.0  # pulling a norm's scale to 0 helps nobody
            groups.setdefault((scale, decay), []).append(parameter)
    if section.encoder_lr not in (1.0, *(scale for scale, _ in groups)):
        raise UsageError(f"optim.encoder_lr={section.encoder_lr:g}: this architecture has no encoder; leave it at 1")
    return [{"params": group, "scale": scale, "weight_decay": decay} for (scale, decay), group in groups.items()]
