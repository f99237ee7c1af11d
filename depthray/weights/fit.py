"""Weights into a network: what fits is loaded, what does not is listed or refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from depthray.models.layers.inputs import CHANNELS, input_channels
from depthray.weights.translation import Translation

# Not needed to predict as before: a count of batches, and matrices that are added to weights, 0 at first.
MAY_LACK = ("num_batches_tracked",)
MAY_LACK_PARTS = (".lora_",)
Inputs = tuple[str, ...]


@dataclass
class Fit:
    """Which weights of a file fit a network; names are the network's, but for those of `unknown` and `lost`."""

    loaded: dict[str, Tensor] = field(default_factory=dict)
    misshapen: dict[str, str] = field(default_factory=dict)  # name -> the two shapes
    lacking: list[str] = field(default_factory=list)  # of the network's, in the part that the file describes
    fresh: list[str] = field(default_factory=list)  # random on purpose
    unknown: list[str] = field(default_factory=list)  # of the file's, without a counterpart
    narrowed: list[str] = field(default_factory=list)  # inputs of the file that the network does not take

    @property
    def fault(self) -> str:
        """The first thing that does not fit, "" where all does."""
        if self.misshapen:
            name, shapes = next(iter(self.misshapen.items()))
            return f"weight '{name}' is {shapes}"
        if self.lacking:
            return f"lacks weight '{self.lacking[0]}'"
        if self.unknown:
            return f"has the unknown weight '{self.unknown[0]}'"
        return f"has the input {self.narrowed[0]}, which data.inputs has not" if self.narrowed else ""


def compare(network: nn.Module, translation: Translation) -> Fit:
    """What of a file's weights fits; nothing is loaded, so that a network without memory will do."""
    targets = network.state_dict()
    result = Fit()
    stacks = _input_stacks(network)
    for key, value in translation.weights.items():
        if key.startswith(translation.fresh or ("\0",)):
            continue
        if key not in targets:
            result.unknown.append(key.removeprefix(translation.prefix))
            continue
        _place(key, value, targets[key], result, stacks, translation.inputs)
    found = {*result.loaded, *result.misshapen, *result.fresh}
    for key in targets:
        if not key.startswith(translation.prefix) or key in found or may_lack(key):
            continue
        if key.startswith(translation.fresh or ("\0",)):
            result.fresh.append(key)
        else:
            result.lacking.append(key.removeprefix(translation.prefix))
    return result


def load(network: nn.Module, fit: Fit) -> None:
    """Copy the weights that fit into the network; one without memory is left as it is."""
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    network.load_state_dict(fit.loaded, strict=False)


def _place(key: str, value: Tensor, target: Tensor, result: Fit, stacks: list[Inputs], inputs: Inputs) -> None:
    pair = _first_convolution(value, target, stacks, inputs)
    if pair is not None:
        theirs, ours = pair
        shared = [name for name in theirs if name in ours]
        if not shared:  # as of an RGB convolution, where the network takes no image
            result.fresh.append(key)
            return
        result.narrowed += [name for name in theirs if name not in ours and name not in result.narrowed]
        result.loaded[key] = _rearrange(value, target, theirs, ours)
    elif value.shape == target.shape:
        result.loaded[key] = value
    else:
        result.misshapen[key] = f"{tuple(value.shape)} there and {tuple(target.shape)} here"


def _first_convolution(
    value: Tensor, target: Tensor, stacks: list[Inputs], inputs: Inputs
) -> tuple[Inputs, Inputs] | None:
    """The inputs of a convolution in the file and in the network; None where it is not one that takes inputs."""
    if value.dim() != 4 or target.dim() != 4 or value[:, 0].shape != target[:, 0].shape:
        return None
    for ours in stacks:
        if target.shape[1] != input_channels(ours):
            continue
        theirs = [some for some in _subsets(inputs) if input_channels(some) == value.shape[1]]
        if theirs:
            # Of a network with several first convolutions each takes a part of the inputs.
            best = max(theirs, key=lambda some: len({*some} & {*ours}))
            return None if best == ours else (best, ours)
    return None


def _rearrange(value: Tensor, target: Tensor, theirs: Inputs, ours: Inputs) -> Tensor:
    """A convolution (O,C,h,w) of their inputs -> one (O,c,h,w) of ours; weights of inputs that are new are 0."""
    wide = torch.zeros(target.shape, dtype=value.dtype, device=value.device)
    starts = dict(_starts(theirs))
    for name, start in _starts(ours):
        if name in starts:
            width = CHANNELS[name]
            wide[:, start : start + width] = value[:, starts[name] : starts[name] + width]
    return wide


def _starts(inputs: Inputs) -> Iterator[tuple[str, int]]:
    for index, name in enumerate(inputs):
        yield name, input_channels(inputs[:index])


def _subsets(inputs: Inputs) -> Iterator[Inputs]:
    """The inputs and all parts of them, in their order, the largest first."""
    for count in range(len(inputs), 0, -1):
        yield from itertools.combinations(inputs, count)


def _input_stacks(network: nn.Module) -> list[Inputs]:
    """What the first convolutions of a network take: all of its inputs, or those of a branch."""
    modules: list[Any] = list(network.modules())
    stacks = [tuple(module.inputs) for module in modules if hasattr(module, "inputs")]
    return list(dict.fromkeys(stacks))


def may_lack(key: str) -> bool:
    """Whether a network predicts the same without this weight from the file."""
    return key.endswith(MAY_LACK) or any(part in key for part in MAY_LACK_PARTS)
