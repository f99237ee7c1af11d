"""Gradients of depthwise convolutions on CPUs that compute in bf16: in float32 where oneDNN is slow in bf16.

oneDNN 3.13 has no depthwise kernel in bf16 for the gradient of the input of a convolution with a stride, nor for that
of the weights where the kernel is larger than 3x3: it takes those of dense convolutions (`brgconv_strided`, `jit_bf16`
in its verbose output). On AVX-512 with bf16 these took 12 to 120 and 3 to 6 times as long as float32's, together half
of a step of an EfficientNet.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from depthray.runtimes.precision import Precision

WIDEST = 3  # pixels of a kernel's side up to which the gradient of weights is fast in bf16
Sides = tuple[int, int]


def active(precision: Precision) -> AbstractContextManager[Any]:
    """The context of a forward pass whose gradients are wanted, within that of `Precision.autocast`."""
    on_cpu = precision.device.type == "cpu" and precision.dtype == torch.bfloat16
    return _DepthwiseMode() if on_cpu else nullcontext()


class _DepthwiseMode(TorchFunctionMode):
    """Takes the calls of `torch.conv2d` that are slow."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        return _conv2d(*args, **options) if func is torch.conv2d else func(*args, **options)


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sides = 1,
    padding: int | Sides | str = 0,
    dilation: int | Sides = 1,
    groups: int = 1,
) -> Tensor:
    is_depthwise = 1 < groups == weight.shape[0] == input.shape[1] and not isinstance(padding, str)
    in_bf16 = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    if is_depthwise and in_bf16 and (max(_pair(stride)) > 1 or max(weight.shape[2:]) > WIDEST):
        # The input is kept for the backward pass, so in bf16; weights are not, and their gradient stays float32.
        output: Tensor = _Depthwise.apply(
            input.to(torch.bfloat16), weight, bias, _pair(stride), _pair(padding), _pair(dilation)
        )
        return output
    return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(value: Any) -> Sides:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        image: Tensor, weight: Tensor, bias: Tensor | None, stride: Sides, padding: Sides, dilation: Sides
    ) -> Tensor:
        """(B,C,H,W) bf16, (C,1,k,k) and (C,) float32 -> (B,C,h,w) bf16 under autocast"""
        return torch.conv2d(image, weight, bias, stride, padding, dilation, len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, weight, bias, ctx.stride, ctx.padding, ctx.dilation = inputs
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        ctx.save_for_backward(image, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """(B,C,h,w) bf16 -> gradients of image (bf16), weight and bias (float32)"""
        image, weight = ctx.saved_tensors

        def gradients(dtype: torch.dtype, wanted: list[bool]) -> list[Tensor | None]:
            tensors = (each.to(dtype) for each in (grad, image, weight))
            geometry = (ctx.stride, ctx.padding, ctx.dilation, False, (0, 0), len(weight))
            found: list[Tensor | None] = list(
                torch.ops.aten.convolution_backward(*tensors, ctx.bias_sizes, *geometry, wanted)
            )
            return found

        of_image, of_weight, of_bias = ctx.needs_input_grad[:3]
        image_dtype = torch.float32 if max(ctx.stride) > 1 else torch.bfloat16
        weight_dtype = torch.float32 if max(weight.shape[2:]) > WIDEST else torch.bfloat16
        if image_dtype == weight_dtype:
            found = gradients(image_dtype, [of_image, of_weight, of_bias])
        else:
            found = [
                gradients(image_dtype, [of_image, False, False])[0] if of_image else None,
                *gradients(weight_dtype, [False, of_weight, of_bias])[1:],
            ]
        given = (None if each is None else each.to(dtype) for each, dtype in zip(found, _DTYPES, strict=True))
        return (*given, None, None, None)


_DTYPES = (torch.bfloat16, torch.float32, torch.float32)
