"""A network made ready for CPUs: batch normalisation folded into its convolutions, their weights laid out once.

A batch normalisation that learns no more is a factor and a shift of each channel, which the convolution before it can
apply for nothing (Jacob et al., Quantization and Training of Neural Networks, 2018, section 3.2). And oneDNN, which
multiplies in blocks, reorders every weight whenever it convolves: for one picture of 160x128 that is half of the time
of a ResNet-34, for eight a seventh. The numbers change by rounding alone, and `pack` looks whether that is so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CLOSE = 1e-3  # by which maps may differ at most, as a share of the largest value


class Packed(nn.Module):
    """A convolution in float32 whose weights are laid out."""

    def __init__(self, conv: nn.Conv2d, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._how = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._bias = conv.bias
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight.detach(), *self._how, shape)

    def forward(self, values: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,c,h',w')"""
        convolved: Tensor = torch.ops.mkldnn._convolution_pointwise(
            values, self._weight, self._bias, *self._how, "none", [], ""
        )
        return convolved


Maps = list[dict[str, NDArray[np.float32]]]


def pack(network: nn.Module, run: Callable[[], Maps]) -> bool:
    """Make ready what one forward pass, `run`, convolves; whether it was done. Else the network is as it was.

    Pictures of another size than those of `run` cost more, but their maps are right.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode():
        seen = _Seen(network, run)
        before = _exchange(network, seen.replacements())
        if _close(run(), seen.maps):
            return True
        _exchange(network, before)
        return False


class _Seen:
    """A forward pass, and what it tells of the network's convolutions."""

    def __init__(self, network: nn.Module, run: Callable[[], Maps]) -> None:
        self._shapes: dict[nn.Conv2d, tuple[int, ...]] = {}
        self._next: dict[nn.Conv2d, nn.BatchNorm2d] = {}
        self._calls: Counter[nn.Module] = Counter()
        self._last: tuple[nn.Conv2d, Tensor] | None = None
        layers = [each for each in network.modules() if _packable(each) or _foldable(each)]
        hooks = [each.register_forward_hook(self._note) for each in layers]
        try:
            self.maps = run()
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._calls[layer] += 1
        if isinstance(layer, nn.Conv2d):
            self._shapes[layer] = tuple(inputs[0].shape)
            self._last = layer, output
        elif isinstance(layer, nn.BatchNorm2d) and self._last and self._last[1] is inputs[0]:
            self._next[self._last[0]] = layer

    def replacements(self) -> dict[nn.Module, nn.Module]:
        """What takes the place of which layer; layers that take part more than once keep to themselves."""
        pairs = {conv: norm for conv, norm in self._next.items() if self._calls[conv] == self._calls[norm] == 1}
        found: dict[nn.Module, nn.Module] = {norm: nn.Identity() for norm in pairs.values()}
        for conv, shape in self._shapes.items():
            whole = fuse_conv_bn_eval(conv, pairs[conv]) if conv in pairs else conv
            found[conv] = Packed(whole, shape)
        return found


def _packable(layer: nn.Module) -> bool:
    return type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _foldable(layer: nn.Module) -> bool:
    return type(layer) is nn.BatchNorm2d and layer.running_mean is not None


def _exchange(network: nn.Module, others: Mapping[nn.Module, nn.Module]) -> dict[nn.Module, nn.Module]:
    """Put other layers in the places of some. Returns what undoes it."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in others:
                setattr(parent, name, others[child])
    return {new: old for old, new in others.items()}


def _close(found: Maps, wanted: Maps) -> bool:
    return all(
        np.abs(one[key] - other[key]).max() <= CLOSE * np.abs(other[key]).max()
        for one, other in zip(found, wanted, strict=True)
        for key in other
    )
