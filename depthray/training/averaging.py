"""A second set of weights, averaged over training steps, which is validated and saved."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from depthray import models
from depthray.batch import Batch
from depthray.config.sections import Optim


class Average:
    """A second set of weights: the mean over training steps (EMA or SWA), which validates better than the last ones.

    Takes the bare network, not one wrapped for several processes or compiled. Buffers (batch-norm statistics) are
    averaged with the weights.
    """

    def __init__(self, model: nn.Module, section: Optim) -> None:
        self.section = section
        self.swa_start = section.swa_start if section.average == "swa" else 0.0
        self.averaged = copy.deepcopy(model)
        # On the device: whether a step counts is known there first, and the host does not wait to learn it.
        device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
        self._count = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def count(self) -> int:
        """How many steps are in the average."""
        return int(self._count)

    def update(self, model: nn.Module, *, progress: float, skip: bool | Tensor = False) -> None:
        """Average in the weights after a step; `progress` is the share of all steps before it. SWA starts later.

        A step that was skipped does not count: `skip` is a bool, or () bool on the device, which nobody waits for.
        """
        # SWA's first weights are far from the mean of its last; EMA forgets them by itself.
        if progress < self.swa_start or skip is True:
            return
        averaged, counters = _tensors(self.averaged)
        current, current_counters = _tensors(model)
        with torch.no_grad():
            if counters:
                torch._foreach_copy_(counters, current_counters)
            if isinstance(skip, Tensor):
                self._blend_on_device(averaged, current, skip)
            else:
                self._blend(averaged, current)

    def network(self, model: nn.Module) -> nn.Module:
        """The network to validate and save: the average, or the raw one while nothing is averaged."""
        return self.averaged if self.count else model

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and how many steps they hold."""
        return {"weights": self.averaged.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.averaged.load_state_dict(state["weights"])
        self._count.fill_(state["count"])

    def _blend(self, averaged: list[Tensor], current: list[Tensor]) -> None:
        count = self.count
        if count:
            share = 1 / (count + 1) if self.section.average == "swa" else 1 - _decay(self.section.ema_decay, count)
            torch._foreach_lerp_(averaged, current, share)
        else:
            torch._foreach_copy_(averaged, current)
        self._count += 1

    def _blend_on_device(self, averaged: list[Tensor], current: list[Tensor], skip: Tensor) -> None:
        """As `_blend`, by arithmetic on the count instead of decisions; weights are equal to rounding."""
        count = self._count
        if self.section.average == "swa":
            share = 1 / (count + 1)
        else:
            share = 1 - ((1 + count) / (10 + count)).clamp(max=self.section.ema_decay).where(count > 0, 0.0)
        share = share.where(~skip, 0.0)
        # A skipped step has left weights and statistics as they were, so that the difference is finite.
        change = list(torch._foreach_sub(current, averaged))
        torch._foreach_mul_(change, share.to(averaged[0].dtype))  # one kind for all: the fast path of foreach
        torch._foreach_add_(averaged, change)
        count += ~skip


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and buffers, and counters such as batch norm's apart, whose mean would be no count."""
    tensors = [*model.parameters(), *model.buffers()]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    return floating, [tensor for tensor in tensors if not tensor.is_floating_point()]


@torch.no_grad()
def recompute_batchnorm(model: nn.Module, batches: Iterable[Batch], *, frozen: Collection[str] = ()) -> None:
    """Set statistics of batch norm to their mean over batches (B,C,H,W), but of the layers named `frozen`.

    As torch's update_bn: those of averaged weights are not the average of statistics. Without such layers no batch is
    read.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    changing = [layer for name, layer in layers.items() if name not in frozen and layer.running_mean is not None]
    if not changing:
        return
    training, momenta = model.training, [layer.momentum for layer in changing]
    model.train()
    for name in frozen:
        layers[name].eval()
    for layer in changing:
        layer.reset_running_stats()
        layer.momentum = None  # an equal mean of all batches
    for batch in batches:
        models.run(model, batch)
    for layer, momentum in zip(changing, momenta, strict=True):
        layer.momentum = momentum
    model.train(training)


def _decay(decay: float, count: int) -> float:
    """EMA's decay, growing from 0.1 to `decay`, so that a short run does not keep its first weights."""
    return min(decay, (1 + count) / (10 + count))  # the form of TensorFlow's ExponentialMovingAverage
