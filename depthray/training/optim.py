"""Optimiser and parameter groups."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from depthray.config.sections import Optim
from depthray.errors import UsageError
from depthray.training.adan import Adan

ENCODER = re.compile(r"(module\.|_orig_mod\.)*encoder\.")  # with the prefixes of DDP and of torch.compile


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
