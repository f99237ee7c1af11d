"""Optimiser and parameter groups."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from depthray.config.sections import Optim
from depthray.errors import UsageError
from depthray.training.adan import Adan
from depthray.training.steps.eager_optimisers import EagerAdam, EagerAdamW, EagerSGD

ENCODER = re.compile(r"(module\.|_orig_mod\.)*encoder\.")  # with the prefixes of DDP and of torch.compile
LISTS = (nn.ModuleList, nn.Sequential)
IMPLEMENTATION = ("fused", "foreach", "capturable")  # keys of torch's groups that change no result


def build_optimiser(model: nn.Module, section: Optim, *, lr: float | None = None) -> torch.optim.Optimizer:
    """The optimiser of a recipe over the parameters that learn; `lr` stands in for the section's peak rate."""
    groups = _groups(model, section)
    rate = section.lr if lr is None else lr
    optimiser: torch.optim.Optimizer
    # fused: the same formulas in one pass over memory, on CPUs and GPUs alike.
    if section.name == "sgd":
        optimiser = EagerSGD(groups, lr=rate, momentum=section.momentum, fused=True)
        optimiser.register_step_pre_hook(_add_momentum)
    elif section.name == "adan":
        optimiser = Adan(groups, lr=rate)
    else:
        kind = EagerAdamW if section.name == "adamw" else EagerAdam
        optimiser = kind(groups, lr=rate, fused=True)
    if section.name != "adan":  # which compares strides itself
        optimiser.register_step_pre_hook(_match_gradients)
        optimiser.register_load_state_dict_post_hook(_match_state)
    optimiser.register_load_state_dict_pre_hook(_keep_implementation)
    set_learning_rate(optimiser, rate)
    return optimiser


def take_step(optimiser: torch.optim.Optimizer, skip: bool | Tensor) -> None:
    """Update the parameters unless `skip`: a bool, or () bool on their device, which nobody waits for."""
    if isinstance(skip, Tensor):
        optimiser.found_inf = skip.float()  # type: ignore[attr-defined]  # what a GradScaler sets
        optimiser.step()
        del optimiser.found_inf  # type: ignore[attr-defined]
    elif not skip:
        optimiser.step()


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of the next step; each group takes its own multiple."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["scale"]


def set_momentum(optimiser: torch.optim.Optimizer, momentum: float | None) -> None:
    """Set the momentum of sgd, or the first beta of adam and adamw, of the next step; None leaves it."""
    if momentum is None or isinstance(optimiser, Adan):  # whose betas mean something else
        return
    for group in optimiser.param_groups:
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        elif group["momentum"]:  # optim.momentum=0 stays without
            group["momentum"] = momentum


def _match_gradients(optimiser: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
    """Give gradients the memory layout of their parameters.

    The fused step on a CPU walks all tensors in memory order without comparing strides: another layout would silently
    be applied to the wrong weights.
    """
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = _as_layout_of(gradient, parameter)


def _match_state(optimiser: torch.optim.Optimizer) -> None:
    """Give loaded state the memory layout of its parameters: it may be another than when it was saved."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            state = optimiser.state.get(parameter, {})
            for key, value in state.items():
                state[key] = _as_layout_of(value, parameter)


def _add_momentum(optimiser: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
    """Let momentum start at 0, from which the first step makes the gradient, as torch's first step does.

    Torch's fused step would reserve it, fill it only where the step is not skipped, and read it at the next.
    """
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if group["momentum"] and parameter.grad is not None:
                state = optimiser.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


def _keep_implementation(optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """State as it was saved, for this optimiser's way to compute: an earlier version, or another device, had others."""
    groups = saved["param_groups"]
    if len(groups) != len(optimiser.param_groups):
        return saved  # torch says so
    own = [{key: group[key] for key in IMPLEMENTATION if key in group} for group in optimiser.param_groups]
    return {**saved, "param_groups": [group | keys for group, keys in zip(groups, own, strict=True)]}


def _as_layout_of(value: Any, parameter: Tensor) -> Any:
    """A tensor of the parameter's shape -> the same values with its strides; anything else as it is."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter).copy_(value)


def _groups(model: nn.Module, section: Optim) -> list[dict[str, Any]]:
    """Parameters grouped by (multiple of the rate, weight decay); vectors (biases, norms) are not decayed."""
    multiples = _encoder_multiples(model, section)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = section.weight_decay if parameter.ndim > 1 else 0.0  # pulling a norm's scale to 0 helps nobody
            groups.setdefault((multiples.get(name, 1.0), decay), []).append(parameter)
    return [{"params": group, "scale": scale, "weight_decay": decay} for (scale, decay), group in groups.items()]


def _encoder_multiples(model: nn.Module, section: Optim) -> dict[str, float]:
    """Name of each parameter of the encoder -> multiple of the rate. Raises UsageError where one is set for none."""
    encoders = [(name, module) for name, module in model.named_modules() if ENCODER.fullmatch(f"{name}.")]
    if not encoders:
        for key, value in (("encoder_lr", section.encoder_lr), ("layer_decay", section.layer_decay)):
            if value != 1:
                raise UsageError(f"optim.{key}={value:g}: this architecture has no encoder; leave it at 1")
        return {}
    prefix, encoder = encoders[0]
    heights = layer_heights(encoder)
    return {f"{prefix}.{name}": section.encoder_lr * section.layer_decay**height for name, height in heights.items()}


def layer_heights(encoder: nn.Module) -> dict[str, int]:
    """Name of each parameter of an encoder -> layers from its own to the end, 1 of the last layer.

    Layers are the blocks of its one list of modules (a transformer's), else its children that have children (a ResNet's
    stages). What comes before is one layer more; a norm after them counts as the decoder's, at 0.
    """
    units, listed = _units(encoder)
    # Which unit is a layer: of a list all elements, else all that consist of further modules.
    layers = [name for name, module in units if (name in listed if listed else any(True for _ in module.children()))]
    names = [name for name, _ in units]
    heights = {}
    for parameter, _ in encoder.named_parameters():
        unit = next((name for name in names if parameter.startswith(f"{name}.")), None)
        passed = names[: names.index(unit) + 1] if unit else []  # what stands directly in the encoder comes first
        below = sum(name in layers for name in passed)
        is_after = below == len(layers) and unit not in layers
        heights[parameter] = 0 if is_after and layers else len(layers) + 1 - below
    return heights


def _units(encoder: nn.Module) -> tuple[list[tuple[str, nn.Module]], set[str]]:
    """The named parts of an encoder in order, its one list of modules as elements; and the names of these."""
    prefix, children = "", _children(encoder)
    while len(children) == 1 and not isinstance(children[0][1], LISTS):  # a wrapper of another library's network
        prefix += f"{children[0][0]}."
        children = _children(children[0][1])
    lists = [name for name, child in children if isinstance(child, LISTS) and len(child) > 1]
    units: list[tuple[str, nn.Module]] = []
    listed: set[str] = set()
    for name, child in children:
        if lists == [name]:
            elements = [(f"{prefix}{name}.{number}", element) for number, element in child.named_children()]
            listed.update(element for element, _ in elements)
            units += elements
        else:
            units.append((f"{prefix}{name}", child))
    return units, listed


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children that have parameters."""
    return [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
