"""A second set of weights, averaged over training steps, which is validated and saved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from depthray import models
from depthray.batch import Batch
from depthray.config.sections import Optim

Tensors = tuple[Tensor, ...] | list[Tensor]


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
