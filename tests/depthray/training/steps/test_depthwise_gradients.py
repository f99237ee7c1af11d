"""Gradients of depthwise convolutions in bf16 on a CPU."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from depthray.runtimes.precision import Precision
from depthray.training.steps import depthwise_gradients

CPU = torch.device("cpu")
BF16 = Precision(CPU, torch.bfloat16)


class Backward(TorchDispatchMode):
    """The formats in which gradients of convolutions are computed, and whether of the input and of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.dtype, list[bool]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.calls.append((args[0].dtype, list(args[-1])[:2]))
        return func(*args, **(kwargs or {}))


def gradients(
    layer: nn.Conv2d, image: Tensor, *, by_us: bool, precision: Precision = BF16
) -> tuple[Tensor, list[Tensor], list[tuple[torch.dtype, list[bool]]]]:
    """Output, gradients of the image and of parameters, and how these were computed."""
    image = image.clone().requires_grad_()
    layer.zero_grad()
    with precision.autocast():
        if by_us:
            with depthwise_gradients.active(precision):
                output = layer(image)
        else:
            output = layer(image)
    with Backward() as seen:
        (output.float() * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    found = [image.grad, *(each.grad for each in layer.parameters())]
    return output, [each for each in found if each is not None], seen.calls


def depthwise(kernel: int, stride: int, *, bias: bool = False, channels: int = 16) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=channels, bias=bias)


@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((3, 5), (1, 2))))
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_as_near_to_float32_as_those_of_torch(kernel: int, stride: int, bias: bool) -> None:
    layer = depthwise(kernel, stride, bias=bias)
    image = torch.randn(2, 16, 12, 18).to(memory_format=torch.channels_last)
    output, ours, _ = gradients(layer, image, by_us=True)
    same, theirs, _ = gradients(layer, image, by_us=False)
    _, exact, _ = gradients(layer, image, by_us=False, precision=Precision(CPU, torch.float32))
    assert output.dtype == torch.bfloat16 and torch.equal(output, same)
    assert len(ours) == len(exact) == 2 + bias
    for our, their, true in zip(ours, theirs, exact, strict=True):
        assert our.dtype == torch.float32 and our.shape == true.shape
        assert (our - true).norm() <= 1.05 * (their - true).norm() + 1e-6 * true.norm()
        assert (our - true).norm() < 0.01 * true.norm()


@pytest.mark.parametrize(
    ("kernel", "stride", "of_image", "of_weights"),
    [
        (3, 1, torch.bfloat16, torch.bfloat16),
        (3, 2, torch.float32, torch.bfloat16),
        (5, 1, torch.bfloat16, torch.float32),
        (5, 2, torch.float32, torch.float32),
    ],
)
def test_what_is_slow_in_bf16_is_computed_in_float32(
    kernel: int, stride: int, of_image: torch.dtype, of_weights: torch.dtype
) -> None:
    _, _, calls = gradients(depthwise(kernel, stride), torch.randn(2, 16, 12, 18), by_us=True)
    assert [dtype for dtype, (image, _) in calls if image] == [of_image]
    assert [dtype for dtype, (_, weights) in calls if weights] == [of_weights]


def test_other_convolutions_are_as_they_were() -> None:
    dense, grouped = nn.Conv2d(16, 16, 5, 2), nn.Conv2d(16, 16, 5, 2, groups=4)
    same = nn.Conv2d(16, 16, 5, padding="same", groups=16)
    for layer in (dense, grouped, same):
        _, _, calls = gradients(layer, torch.randn(2, 16, 12, 18), by_us=True)
        assert [dtype for dtype, _ in calls] == [torch.bfloat16]


def test_only_what_is_trained_has_a_gradient() -> None:
    layer = depthwise(5, 2)
    layer.weight.requires_grad_(False)
    _, found, calls = gradients(layer, torch.randn(2, 16, 12, 18), by_us=True)
    assert len(found) == 1 and calls == [(torch.float32, [True, False])]
    with torch.no_grad(), BF16.autocast(), depthwise_gradients.active(BF16):
        assert layer(torch.randn(2, 16, 12, 18)).grad_fn is None


def test_a_part_of_a_network_that_switches_autocast_off_stays_in_float32() -> None:
    with BF16.autocast(), depthwise_gradients.active(BF16), torch.autocast("cpu", enabled=False):
        assert depthwise(5, 2)(torch.randn(2, 16, 12, 18)).dtype == torch.float32


def test_float32_and_gpus_are_left_alone() -> None:
    for precision in (Precision(CPU, torch.float32), Precision(torch.device("cuda"), torch.bfloat16)):
        with depthwise_gradients.active(precision):
            output = depthwise(5, 2)(torch.randn(1, 16, 12, 18))
        assert type(output.grad_fn).__name__ == "ConvolutionBackward0"
