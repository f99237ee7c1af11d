"""Networks that start from files of weights, and the names and shapes of weights as they were published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from depthray import models
from depthray.config.sections import Model
from depthray.models import dpt
from depthray.weights.start import StartReport, start

Shapes = dict[str, tuple[int, ...]]
TINY = dpt.SHAPES["tiny"]


def started(inputs: tuple[str, ...] = ("image",), *, name: str = "unet", **section: Any) -> Any:
    """The network of a model section with the weights that it starts from."""
    return start_report(inputs, name=name, **section)[0]


def start_report(
    inputs: tuple[str, ...] = ("image",), *, name: str = "unet", **section: Any
) -> tuple[nn.Module, StartReport]:
    """The network of a model section with the weights that it starts from, and the report about them."""
    made = Model(name=name, **section)
    network = models.build_model(made, inputs)
    return network, start(network, made)


def random_weights(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Random tensors of these shapes."""
    generator = torch.Generator().manual_seed(3)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def pair(name: str, *shape: int, bias: int | None = None) -> Shapes:
    """A weight and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0] if bias is None else bias,)}


def dinov2(width: int = TINY.width, blocks: int = TINY.blocks, grid: int = TINY.grid, *, registers: int = 0) -> Shapes:
    """As in facebookresearch/dinov2, vision_transformer.py with block_chunks=0."""
    shapes: Shapes = {"cls_token": (1, 1, width), "pos_embed": (1, grid**2 + 1, width), "mask_token": (1, width)}
    if registers:
        shapes["register_tokens"] = (1, registers, width)
    shapes |= pair("patch_embed.proj", width, 3, 14, 14)
    for number in range(blocks):
        block: Shapes = {"ls1.gamma": (width,), "ls2.gamma": (width,)}
        block |= pair("norm1", width) | pair("norm2", width)
        block |= pair("attn.qkv", 3 * width, width) | pair("attn.proj", width, width)
        block |= pair("mlp.fc1", 4 * width, width) | pair("mlp.fc2", width, 4 * width)
        shapes |= {f"blocks.{number}.{key}": shape for key, shape in block.items()}
    return shapes | pair("norm", width)


def dpt_head(width: int, fused: int, levels: tuple[int, ...], *, joins_coarsest: bool = True) -> Shapes:
    """As in DepthAnything/Depth-Anything-V2, dpt.py; the coarsest fusion has a part that nothing uses."""
    return dict(_dpt_head(width, fused, levels, joins_coarsest=joins_coarsest))


def _dpt_head(
    width: int, fused: int, levels: tuple[int, ...], *, joins_coarsest: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number, level in enumerate(levels):
        yield from pair(f"projects.{number}", level, width, 1, 1).items()
        yield f"scratch.layer{number + 1}_rn.weight", (fused, level, 3, 3)
        fusion = f"scratch.refinenet{number + 1}"
        yield from pair(f"{fusion}.out_conv", fused, fused, 1, 1).items()
        units = ("resConfUnit1", "resConfUnit2") if joins_coarsest or number < 3 else ("resConfUnit2",)
        for unit in units:
            yield from pair(f"{fusion}.{unit}.conv1", fused, fused, 3, 3).items()
            yield from pair(f"{fusion}.{unit}.conv2", fused, fused, 3, 3).items()
    yield from pair("resize_layers.0", levels[0], levels[0], 4, 4).items()
    yield from pair("resize_layers.1", levels[1], levels[1], 2, 2).items()
    yield from pair("resize_layers.3", levels[3], levels[3], 3, 3).items()
    yield from pair("scratch.output_conv1", fused // 2, fused, 3, 3).items()
    yield from pair("scratch.output_conv2.0", 32, fused // 2, 3, 3).items()
    yield from pair("scratch.output_conv2.2", 1, 32, 1, 1).items()


def tiny_head(*, joins_coarsest: bool = True) -> Shapes:
    """The decoder of the smallest dpt."""
    return dpt_head(TINY.width, dpt.FUSED["tiny"], dpt.LEVELS["tiny"], joins_coarsest=joins_coarsest)


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    """The same names below a prefix."""
    return {f"{prefix}{key}": shape for key, shape in shapes.items()}


def depth_anything_v2(width: int, blocks: int, grid: int, fused: int, levels: tuple[int, ...]) -> Shapes:
    """As in DepthAnything/Depth-Anything-V2, metric and relative alike."""
    return prefixed("pretrained.", dinov2(width, blocks, grid)) | prefixed(
        "depth_head.", dpt_head(width, fused, levels)
    )


def tiny_depth_anything_v2() -> Shapes:
    """The same names in the sizes of the smallest dpt."""
    return depth_anything_v2(TINY.width, TINY.blocks, TINY.grid, dpt.FUSED["tiny"], dpt.LEVELS["tiny"])


def tiny_depth_anything_3() -> Shapes:
    """As in ByteDance-Seed/Depth-Anything-3, da3metric-large: no camera token, a second branch for the sky."""
    head = tiny_head(joins_coarsest=False)
    head |= pair("scratch.sky_output_conv2.0", 32, dpt.FUSED["tiny"] // 2, 3, 3)
    head |= pair("scratch.sky_output_conv2.2", 1, 32, 1, 1)
    return prefixed("model.backbone.pretrained.", dinov2()) | prefixed("model.head.", head)


def tiny_moge_2() -> Shapes:
    """As in microsoft/MoGe, v2.py: an encoder, a neck and heads of convolutions."""
    encoder = prefixed("backbone.", dinov2()) | {"image_mean": (1, 3, 1, 1), "image_std": (1, 3, 1, 1)}
    for number in range(4):
        encoder |= pair(f"output_projections.{number}", 64, TINY.width, 1, 1)
    rest = pair("neck.input_blocks.0", 64, 66, 1, 1) | pair("points_head.output_blocks.4", 3, 16, 1, 1)
    return prefixed("encoder.", encoder) | rest | pair("scale_head.0", TINY.width, TINY.width)
