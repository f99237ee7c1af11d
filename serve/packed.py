"""Weights of convolutions laid out once as the CPU wants them, rather than before each forward pass.

oneDNN multiplies in blocks and so reorders every weight whenever it convolves: for one picture of 160x128 that is half
of the time of a ResNet-34, for eight a seventh. The numbers are the same to the last bit or nearly so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


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


def pack(network: nn.Module, run: Callable[[], Any]) -> None:
    """Lay out what `run` makes the network convolve; sizes other than those it sees then cost more but are right."""
    if not torch.backends.mkldnn.is_available():
        return
    with torch.inference_mode():
        for parent, name, conv, shape in _convolved(network, run):
            setattr(parent, name, Packed(conv, shape))


def _convolved(network: nn.Module, run: Callable[[], Any]) -> list[tuple[nn.Module, str, nn.Conv2d, tuple[int, ...]]]:
    """The convolutions that take part: where each hangs, by what name, and the shape of its input."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[conv] = tuple(inputs[0].shape)

    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Conv2d and child.padding_mode == "zeros" and not isinstance(child.padding, str)
    ]
    hooks = [child.register_forward_pre_hook(note) for _, _, child in places]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [(parent, name, child, shapes[child]) for parent, name, child in places if child in shapes]
