"""Dense prediction transformer, a present-day reference for the seed systems: metres = max_depth * sigmoid.

The encoder is DINOv2's, the decoder that of DPT (Ranftl et al. 2021) as Depth Anything V2 has it, and `model.weights`
reads the metric checkpoints published for that: `max_depth: 20` for the indoor ones (Hypersim), 80 for the outdoor
ones (Virtual KITTI). Their preprocessing is the image / 255 normalised as for ImageNet, as `Planes` does, and resized
bicubically with its aspect kept to 518 pixels of the shorter side and a multiple of 14 of the longer: `data.fit=aspect`
with a `data.size` whose shorter side is 518. Other sizes work too, at a lower score.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.models.layers import lora
from depthray.models.layers.blocks import upsample
from depthray.models.layers.depth_head import Completion, DepthHead
from depthray.models.layers.encoder import widen
from depthray.models.layers.inputs import InputStack
from depthray.models.layers.vit import PATCH, ViT, ViTShape

Size = Literal["tiny", "vits", "vitb", "vitl"]

SHAPES: dict[Size, ViTShape] = {
    # Taps are those of Depth Anything V2, the last one the last block; "tiny" is for tests and not published.
    "tiny": ViTShape(width=48, blocks=4, heads=3, taps=(0, 1, 2, 3), grid=8),
    "vits": ViTShape(width=384, blocks=12, heads=6, taps=(2, 5, 8, 11)),
    "vitb": ViTShape(width=768, blocks=12, heads=12, taps=(2, 5, 8, 11)),
    "vitl": ViTShape(width=1024, blocks=24, heads=16, taps=(4, 11, 17, 23)),
}
LEVELS: dict[Size, tuple[int, int, int, int]] = {  # channels of the four maps a decoder begins with
    "tiny": (16, 24, 32, 48),
    "vits": (48, 96, 192, 384),
    "vitb": (96, 192, 384, 768),
    "vitl": (256, 512, 1024, 1024),
}
FUSED: dict[Size, int] = {"tiny": 16, "vits": 64, "vitb": 128, "vitl": 256}  # channels of the decoder
LAST = 32  # channels before the logits

VARIANTS: dict[str, dict[str, Any]] = {f"dpt-{size}": {"size": size} for size in SHAPES if size != "vits"}


class ResidualConvUnit(nn.Module):
    """Two convolutions, each after a ReLU, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)"""
        # Not in place: the input itself is added.
        added: Tensor = features + self.conv2(F.relu(self.conv1(F.relu(features))))
        return added


class FeatureFusionBlock(nn.Module):
    """Join a finer level, convolve, upsample."""

    def __init__(self, channels: int, *, joins: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        self.resConfUnit1 = ResidualConvUnit(channels) if joins else None
        self.resConfUnit2 = ResidualConvUnit(channels)

    def forward(self, features: Tensor, finer: Tensor | None, *, size: tuple[int, int]) -> Tensor:
        """(B,C,h,w) features, the level of that size -> (B,C,H,W) of `size`"""
        if self.resConfUnit1 is not None and finer is not None:
            features = features + self.resConfUnit1(finer)
        fused: Tensor = self.out_conv(upsample(self.resConfUnit2(features), size))  # (B,C,H,W)
        return fused


class Scratch(nn.Module):
    """Four levels of equal width, fused from the coarsest to the finest, then logits."""

    def __init__(self, levels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        # Named as published: these are the keys of the weights.
        for number, count in enumerate(levels, start=1):
            setattr(self, f"layer{number}_rn", nn.Conv2d(count, channels, 3, padding=1, bias=False))
            setattr(self, f"refinenet{number}", FeatureFusionBlock(channels, joins=number < len(levels)))
        self.output_conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        # The published sequence ends in a sigmoid, which has no weights: here DepthHead applies it.
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(channels // 2, LAST, 3, padding=1), nn.ReLU(), nn.Conv2d(LAST, 1, 1)
        )

    def forward(self, levels: list[Tensor], *, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """four levels (B,c,h,w), finest first -> (B,1,H,W) logits of `size`, (B,32,H,W) features before them"""
        even = [getattr(self, f"layer{number}_rn")(level) for number, level in enumerate(levels, start=1)]
        # Each level is upsampled to the size of the next finer one, the finest to twice its own.
        sizes = [
            (2 * even[0].shape[-2], 2 * even[0].shape[-1]),
            *((level.shape[-2], level.shape[-1]) for level in even),
        ]
        features = even[-1]  # (B,C,h/2,w/2), of a grid of (h,w) patches
        for number in range(len(even), 0, -1):
            finer = even[number - 1] if number < len(even) else None
            features = getattr(self, f"refinenet{number}")(features, finer, size=sizes[number - 1])
        features = self.output_conv2[:-1](upsample(self.output_conv1(features), size))  # (B,C,8h,8w) -> (B,32,H,W)
        return self.output_conv2[-1](features), features


class DPTDecoder(nn.Module):
    """Four maps of one size become levels at 4, 2, 1 and 1/2 times that size, then logits."""

    def __init__(self, width: int, levels: tuple[int, int, int, int], channels: int) -> None:
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(width, level, 1) for level in levels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(levels[0], levels[0], 4, stride=4),
                nn.ConvTranspose2d(levels[1], levels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(levels[3], levels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(levels, channels)

    def forward(self, maps: list[Tensor], *, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """four maps (B,C,h,w), shallowest first -> (B,1,H,W) logits, (B,32,H,W) features before them"""
        steps = zip(self.projects, self.resize_layers, maps, strict=True)
        levels = [resize(project(level)) for project, resize, level in steps]  # (B,c,4h,4w) to (B,c,h/2,w/2)
        result: tuple[Tensor, Tensor] = self.scratch(levels, size=size)
        return result


class DPT(nn.Module):
    """Transformer, decoder, metres."""

    stride = PATCH

    def __init__(
        self,
        stack: InputStack,
        size: Size,
        *,
        max_depth: float,
        registers: int = 0,
        completion: Completion | None = None,
    ) -> None:
        super().__init__()
        self.inputs = stack.inputs
        self.max_depth = max_depth
        self.stack = stack
        self.encoder = ViT(SHAPES[size], registers=registers)
        self.depth_head = DPTDecoder(SHAPES[size].width, LEVELS[size], FUSED[size])
        last: Any = self.depth_head.scratch.output_conv2[-1]
        self.metres = DepthHead(
            "sigmoid", max_depth=max_depth, inputs=stack.inputs, channels=LAST, completion=completion
        )
        self.metres.init_bias(last)

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,H,W) depth in metres, float32"""
        stacked = self.stack(batch)
        logits, features = self.depth_head(self.encoder(stacked), size=(stacked.shape[-2], stacked.shape[-1]))
        return self.metres.predict(logits, batch, features)


def build(
    *,
    size: Size = "vits",
    registers: Literal[0, 4] = 0,
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    lora_rank: Annotated[int, Field(ge=0, le=512)] = 0,
    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 16.0,
    lora_mlp: bool = False,
    lora_decoder: Literal["none", "output", "all"] = "output",
    inputs: tuple[str, ...] = ("image",),
    completion: Completion | None = None,
) -> DPT:
    """The network of a recipe's `model` section. `registers`: tokens without a patch, as some DINOv2s have.

    `lora_rank` above 0 trains, instead of all weights, matrices of that rank times lora_alpha / lora_rank on queries,
    keys, values and projections of the encoder, with `lora_mlp` on its MLPs too; and of the decoder what `lora_decoder`
    says: nothing, its last convolutions (`output_conv1`, `output_conv2`), or all, which is a tenth of the network.
    """
    stack = InputStack(inputs, max_depth=max_depth)
    network = DPT(stack, size, max_depth=max_depth, registers=registers, completion=completion)
    network.encoder.patch_embed.proj = widen(network.encoder.patch_embed.proj, inputs)
    if lora_rank:
        lora.add(network.encoder.blocks, rank=lora_rank, alpha=lora_alpha, mlp=lora_mlp)
        lora.train_only(network, also=_trained_with_lora(network, lora_decoder))
    return network


def _trained_with_lora(network: DPT, decoder: str) -> list[nn.Module]:
    """What trains of a network besides the matrices of LoRA."""
    scratch = network.depth_head.scratch
    parts: dict[str, list[nn.Module]] = {
        "none": [],
        "output": [scratch.output_conv1, scratch.output_conv2],
        "all": [network.depth_head],
    }
    # Weights of further inputs begin at 0: frozen, they would never be used.
    first = [] if network.inputs == ("image",) else [network.encoder.patch_embed.proj]
    return [*parts[decoder], *first, network.metres]
