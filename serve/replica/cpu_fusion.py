"""Faster inference on CPUs: batch normalisation folded into convolutions, and weights in oneDNN's blocked layout.

In evaluation, batch normalisation is a factor and a shift of each channel, which the convolution before it can apply
for nothing (Jacob et al., Quantization and Training of Neural Networks, 2018, section 3.2). And oneDNN, which
multiplies in blocks, reorders every weight whenever it convolves: for one image of 160x128 that is half of the time
of a ResNet-34, for eight a seventh. The results change by rounding alone, which `fuse` verifies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3  # largest difference of maps, relative to their largest value

Maps = list[dict[str, NDArray[np.float32]]]


class PackedConv(nn.Module):
    """A float32 convolution whose weights are reordered once, for one shape of input.

    The two operators have no public name: torch's inductor uses them, and `torch.compile` alone leads to them, at the
    price of minutes at each start of a replica.
    """

    def __init__(self, conv: nn.Conv2d, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._bias = conv.bias
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight.detach(), *self._geometry, shape)

    def forward(self, values: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,c,h',w')"""
        convolved: Tensor = torch.ops.mkldnn._convolution_pointwise(
            values, self._weight, self._bias, *self._geometry, "none", [], ""
        )
        return convolved


def fuse(network: nn.Module, run: Callable[[], Maps]) -> bool:
    """Replace the layers that one forward pass, `run`, uses; False, and no change, if that would change its results.

    Images of another size than those of `run` are slower, but their maps are right.
    """
    # Not a mistake: builds of PyTorch for some processors lack oneDNN, and the network is right without.
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode():
        trace = _ForwardTrace(network, run)
        originals = _replace_layers(network, trace.replacements())
        if _agree(run(), trace.maps):
            return True
        _replace_layers(network, originals)
        return False


class _ForwardTrace:
    """One forward pass: its maps, and which layers it called in which order and with which shapes."""

    def __init__(self, network: nn.Module, run: Callable[[], Maps]) -> None:
        self._shapes: dict[nn.Conv2d, tuple[int, ...]] = {}
        self._norms: dict[nn.Conv2d, nn.BatchNorm2d] = {}  # the normalisation that follows
        self._calls: Counter[nn.Module] = Counter()
        self._last: tuple[nn.Conv2d, Tensor] | None = None
        layers = [layer for layer in network.modules() if _is_packable(layer) or _is_foldable(layer)]
        hooks = [layer.register_forward_hook(self._record) for layer in layers]
        try:
            self.maps = run()
        finally:
            for hook in hooks:
                hook.remove()

    def _record(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._calls[layer] += 1
        if isinstance(layer, nn.Conv2d):
            self._shapes[layer] = tuple(inputs[0].shape)
            self._last = layer, output
        # The very tensor: nothing between the two layers has changed it.
        elif isinstance(layer, nn.BatchNorm2d) and self._last and self._last[1] is inputs[0]:
            self._norms[self._last[0]] = layer

    def replacements(self) -> dict[nn.Module, nn.Module]:
        """Layer -> its replacement. Only convolutions and normalisations that were called once are folded."""
        # A shared layer has other neighbours at its other calls; only the comparison of the maps sees other uses.
        pairs = {conv: norm for conv, norm in self._norms.items() if self._calls[conv] == self._calls[norm] == 1}
        replacements: dict[nn.Module, nn.Module] = {norm: nn.Identity() for norm in pairs.values()}
        for conv, shape in self._shapes.items():
            folded = fuse_conv_bn_eval(conv, pairs[conv]) if conv in pairs else conv
            replacements[conv] = PackedConv(folded, shape)
        return replacements


def _is_packable(layer: nn.Module) -> bool:
    # The class itself, as a subclass may compute something else; and oneDNN pads with zeros, by numbers.
    return type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _is_foldable(layer: nn.Module) -> bool:
    return type(layer) is nn.BatchNorm2d and layer.running_mean is not None


def _replace_layers(network: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> dict[nn.Module, nn.Module]:
    """Replace layers wherever they are in the network. Returns the replacements that undo it."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in replacements:
                setattr(parent, name, replacements[child])
    return {new: old for old, new in replacements.items()}


def _agree(maps: Maps, expected: Maps) -> bool:
    return all(
        np.abs(one[key] - other[key]).max() <= TOLERANCE * np.abs(other[key]).max()
        for one, other in zip(maps, expected, strict=True)
        for key in other
    )
