"""Weights into a network: what fits is loaded, what does not is listed or refused."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from depthray.weights.translation import Translation, Widths, stacks_of

# Not needed to predict depth as before: a count of batches, matrices that are added to weights, 0 at first, what
# predicts maps along with depth, a guided fill, which begins as the plain one, and late fusion, which begins at 0.
MAY_LACK = ("num_batches_tracked",)
MAY_LACK_PARTS = (".lora_", ".log_sigma.", ".valid_mask.", ".fill.", ".late.")
Stacks = tuple[tuple[Widths, ...], tuple[Widths, ...]]  # of the file, of the network


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
    def is_empty(self) -> bool:
        """Whether nothing that matters was loaded."""
        return all(may_lack(name) for name in self.loaded)

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
    stacks = (translation.stacks, stacks_of(network))
    for key, value in translation.weights.items():
        if key.startswith(translation.fresh or ("\0",)):
            continue
        if key not in targets:
            result.unknown.append(key.removeprefix(translation.prefix))
            continue
        _place(key, value, targets[key], result, stacks)
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


def _place(key: str, value: Tensor, target: Tensor, result: Fit, stacks: Stacks) -> None:
    pair = _first_convolution(value, target, stacks)
    if pair is not None:
        theirs, ours = pair
        if not _shared(theirs, ours):  # as of an RGB convolution, where the network takes no image
            result.fresh.append(key)
            return
        result.narrowed += [name for name in theirs if name not in ours and name not in result.narrowed]
        result.loaded[key] = _rearrange(value, target, theirs, ours)
    elif value.shape == target.shape:
        result.loaded[key] = value
    else:
        result.misshapen[key] = f"{tuple(value.shape)} there and {tuple(target.shape)} here"


def _first_convolution(value: Tensor, target: Tensor, stacks: Stacks) -> tuple[Widths, Widths] | None:
    """The inputs of a convolution in the file and in the network; None where it is not one that takes inputs."""
    if value.dim() != 4 or target.dim() != 4 or value[:, 0].shape != target[:, 0].shape:
        return None
    pairs = [
        (theirs, ours)
        for theirs, ours in itertools.product(*stacks)
        if sum(theirs.values()) == value.shape[1] and sum(ours.values()) == target.shape[1]
    ]
    if not pairs:
        return None
    # Of a network with several first convolutions each takes a part of the inputs.
    theirs, ours = max(pairs, key=lambda pair: len(_shared(*pair)))
    return None if list(theirs.items()) == list(ours.items()) else (theirs, ours)


def _shared(theirs: Widths, ours: Widths) -> list[str]:
    return [name for name, width in theirs.items() if ours.get(name) == width]


def _rearrange(value: Tensor, target: Tensor, theirs: Widths, ours: Widths) -> Tensor:
    """A convolution (O,C,h,w) of their inputs -> one (O,c,h,w) of ours; weights of inputs that are new are 0."""
    wide = torch.zeros(target.shape, dtype=value.dtype, device=value.device)
    from_starts, to_starts = _starts(theirs), _starts(ours)
    for name in _shared(theirs, ours):
        begin, end = from_starts[name], from_starts[name] + theirs[name]
        wide[:, to_starts[name] : to_starts[name] + ours[name]] = value[:, begin:end]
    return wide


def _starts(widths: Widths) -> dict[str, int]:
    """Input -> its first channel."""
    return dict(zip(widths, itertools.accumulate(widths.values(), initial=0), strict=False))


def may_lack(key: str) -> bool:
    """Whether a network predicts the same depth without this weight from the file."""
    return key.endswith(MAY_LACK) or any(part in key for part in MAY_LACK_PARTS)
