"""EfficientNet with three BiFPN blocks side by side (seed system 003): metres at a quarter of the input's size.

A block carries five maps of the encoder down to finer ones and back up to coarser ones; each node weighs its inputs,
convolves them channel by channel, applies GELU and normalises. Its two finest outputs are laid out as pixels. The three
blocks' outputs, plus a shortcut from the image, pass an inception layer and two separable convolutions.

In the original the nodes' weights were plain tensors, never trained; node `td6` added its weights instead of dividing
by them, the divisor of `out5` lacked one of them, and its outputs `out5` to `out7` went nowhere: `fusion: constant` is
that network, with those three nodes frozen. `fusion: trainable` trains the weights, divides by all of them, and adds
the three coarse outputs to `out4`. The original's head was ReLU6 on depths relative to the farthest (`head: relu6`,
1 = max_depth), its colours in [0,1] (`normalise: none`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.models.layers.depth_head import Completion, DepthHead
from depthray.models.layers.encoder import Encoder, widen
from depthray.models.layers.encoders import Normalise, build_encoder, build_stack
from depthray.models.layers.inputs import InputStack

WIDTH = 64  # channels of every node
BLOCKS = 3
HEAD_WIDTH = 40  # channels before the logits
EncoderName = Literal["efficientnet_b0", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
LEVELS = (3, 5, 6, 7, 8)  # maps of an EfficientNet: one at 1/8, one at 1/16, three at 1/32
EPSILON = 1e-4  # keeps divisors above 0; the value of EfficientDet (Tan et al. 2020)
NODES = {"td6": 2, "td5": 2, "td4": 2, "out3": 2, "out4": 3, "out5": 3, "out6": 3, "out7": 2}  # how many inputs
ODD = {  # nodes whose divisor the original got wrong: divisor and offset as they came out with all weights 1
    "td6": (1.0, 1.0 + EPSILON),
    "out5": (2.0 + EPSILON, 0.0),
}
COARSE = ("out5", "out6", "out7")
VARIANTS: dict[str, dict[str, Any]] = {
    "bifpn-original": {"fusion": "constant", "head": "relu6", "normalise": "none"},
}
Fusion = Literal["trainable", "constant"]


class TrainableFusion(nn.Module):
    """Mean of maps by trained weights. Their magnitude counts: one that crosses 0 still has a gradient."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """n maps (B,C,h,w) -> (B,C,h,w)"""
        weight = self.weight.abs()
        shares = weight / (weight.sum() + EPSILON)  # (n,)
        # (n,B,C,h,w) summed to (B,C,h,w).
        return torch.stack([share * values for share, values in zip(shares, maps, strict=True)]).sum(dim=0)


class ConstantFusion(nn.Module):
    """Sum of maps over a divisor, plus an offset: what the original came to. Holds no weights."""

    def __init__(self, divisor: float, *, offset: float) -> None:
        super().__init__()
        self.divisor = divisor
        self.offset = offset

    def forward(self, maps: list[Tensor]) -> Tensor:
        """n maps (B,C,h,w) -> (B,C,h,w)"""
        return torch.stack(maps).sum(dim=0) / self.divisor + self.offset


class FusionNode(nn.Module):
    """Fuse maps of one size, then depthwise convolution, GELU, batch norm: in this order."""

    def __init__(self, fuse: nn.Module) -> None:
        super().__init__()
        self.fuse = fuse
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, *maps: Tensor) -> Tensor:
        """n maps (B,C,h,w) -> (B,C,h,w)"""
        # The norm comes last, as in the original: elsewhere it stands before the activation.
        node: Tensor = self.norm(F.gelu(self.conv(self.fuse(list(maps)))))
        return node


class BiFPN(nn.Module):
    """Five maps of the encoder, down to the finest and back up; the outputs have the sizes of the maps."""

    def __init__(self, channels: tuple[int, ...], *, fusion: Fusion) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, WIDTH, 3, padding=1) for count in channels)
        self.node = nn.ModuleDict({name: FusionNode(_fuse(name, fusion=fusion)) for name in NODES})

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """five maps (B,c,h,w) at 1/8, 1/16, 1/32, 1/32, 1/32 -> five (B,64,h,w)"""
        node = self.node
        in3, in4, in5, in6, in7 = (lateral(level) for lateral, level in zip(self.lateral, levels, strict=True))
        td6 = node["td6"](in6, in7)
        td5 = node["td5"](in5, td6)  # (B,64,H/32,W/32), as td6
        td4 = node["td4"](in4, _double(td5))  # (B,64,H/16,W/16)
        out3 = node["out3"](in3, _double(td4))  # (B,64,H/8,W/8)
        out4 = node["out4"](in4, td4, F.max_pool2d(out3, 2))  # (B,64,H/16,W/16)
        out5 = node["out5"](in5, td5, F.max_pool2d(out4, 2))  # (B,64,H/32,W/32), as the rest
        out6 = node["out6"](in6, td6, out5)
        return [out3, out4, out5, out6, node["out7"](in7, out6)]


class BiFPNBlock(nn.Module):
    """A BiFPN and its outputs laid out as pixels at a quarter of the image's size."""

    out_channels = WIDTH // 4 + WIDTH // 16  # of the two finest maps, laid out as pixels

    def __init__(self, channels: tuple[int, ...], *, fusion: Fusion) -> None:
        super().__init__()
        self.bifpn = BiFPN(channels, fusion=fusion)
        self.norm = nn.BatchNorm2d(self.out_channels)
        self.coarse = fusion == "trainable"
        if not self.coarse:  # nothing uses them, and DDP fails for parameters without a gradient
            for name in COARSE:
                self.bifpn.node[name].requires_grad_(False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """five maps (B,c,h,w) -> (B,20,H/4,W/4)"""
        out3, out4, *coarse = self.bifpn(levels)
        if self.coarse:
            out4 = out4 + _double(torch.stack(coarse).mean(dim=0))  # (3,B,64,H/32,W/32) -> (B,64,H/16,W/16)
        pixels = torch.cat([F.pixel_shuffle(out3, 2), F.pixel_shuffle(out4, 4)], dim=1)  # (B,16+4,H/4,W/4)
        return F.gelu(self.norm(pixels))


class Inception(nn.Module):
    """Three branches of different receptive field plus a 1x1 shortcut: 48 + 48 + 32 + 32 + 16 channels."""

    out_channels = 176

    def __init__(self, in_channels: int, *, base: int = 16) -> None:
        super().__init__()
        # Neither norm nor activation in any branch, as in the original: the layer is linear.
        self.wide = nn.Sequential(nn.Conv2d(in_channels, base, 1), nn.Conv2d(base, 2 * base, 3, padding=1))
        self.wide_ends = _row_and_column(2 * base, 3 * base)
        self.middle = nn.Conv2d(in_channels, base, 1)
        self.middle_ends = _row_and_column(base, 2 * base)
        self.narrow = nn.Conv2d(in_channels, base, 1)
        self.shortcut = nn.Conv2d(in_channels, self.out_channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,176,h,w)"""
        wide, middle = self.wide(features), self.middle(features)  # (B,32,h,w), (B,16,h,w)
        ends = [end(wide) for end in self.wide_ends] + [end(middle) for end in self.middle_ends]
        joined: Tensor = torch.cat([*ends, self.narrow(features)], dim=1) + self.shortcut(features)
        return joined


class EfficientBiFPN(nn.Module):
    """Encoder, three blocks side by side, inception, separable convolutions to logits."""

    stride = 32  # five halvings; each node takes maps of exactly half or twice its size
    idle: tuple[str, ...] = ()  # patterns of names of parameters without influence on the output

    def __init__(self, stack: InputStack, encoder: Encoder, *, fusion: Fusion, metres: DepthHead) -> None:
        super().__init__()
        self.inputs = stack.inputs
        self.stack = stack
        self.encoder = encoder
        channels = tuple(encoder.channels[level] for level in LEVELS)
        if fusion == "constant":
            self.idle = (rf"\.node\.({'|'.join(COARSE)})\.",)
        self.blocks = nn.ModuleList(BiFPNBlock(channels, fusion=fusion) for _ in range(BLOCKS))
        width = BLOCKS * BiFPNBlock.out_channels
        self.shortcut = widen(nn.Conv2d(3, width, 1, bias=False), stack.inputs)
        self.inception = Inception(width)
        last = nn.Conv2d(HEAD_WIDTH, 1, 1)
        self.head = nn.Sequential(
            *_separable(Inception.out_channels, nn.Conv2d(Inception.out_channels, HEAD_WIDTH, 1)),
            nn.BatchNorm2d(HEAD_WIDTH),
            nn.GELU(),
            *_separable(HEAD_WIDTH, last),
        )
        self.metres = metres
        self.reduction = 1 if metres.is_full else 4  # the depth has such a part of the input's height and width
        metres.init_bias(last)

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,H/4,W/4) depth in metres, float32; (B,1,H,W) with samples"""
        stacked = self.stack(batch)
        maps = self.encoder(stacked)  # (B,c,H/2,W/2) to (B,1280,H/32,W/32)
        levels = [maps[level] for level in LEVELS]
        features = torch.cat([block(levels) for block in self.blocks], dim=1)  # (B,60,H/4,W/4)
        features = features + F.max_pool2d(self.shortcut(stacked), 4)  # (B,60,H,W) pooled to (B,60,H/4,W/4)
        features = self.head[:-1](self.inception(features))  # (B,40,H/4,W/4)
        return self.metres.predict(self.head[-1](features), batch, features)


def _fuse(name: str, *, fusion: Fusion) -> nn.Module:
    if fusion == "trainable":
        return TrainableFusion(NODES[name])
    # The weights of the original stayed 1, so that their sum is the number of inputs.
    divisor, offset = ODD.get(name, (NODES[name] + EPSILON, 0.0))
    return ConstantFusion(divisor, offset=offset)


def _double(features: Tensor) -> Tensor:
    """(B,C,h,w) -> (B,C,2h,2w), each value four times"""
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


def _row_and_column(in_channels: int, out_channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        [
            nn.Conv2d(in_channels, out_channels, (1, 3), padding=(0, 1)),
            nn.Conv2d(in_channels, out_channels, (3, 1), padding=(1, 0)),
        ]
    )


def _separable(channels: int, pointwise: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels), pointwise


def build(
    *,
    encoder: EncoderName = "efficientnet_b0",
    fusion: Fusion = "trainable",
    head: Literal["sigmoid", "relu6"] = "sigmoid",
    normalise: Normalise = "imagenet",
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    inputs: tuple[str, ...] = ("image",),
    completion: Completion | None = None,
) -> EfficientBiFPN:
    """The network of a recipe's `model` section."""
    network = build_encoder(encoder, inputs, every_stage=True)
    return EfficientBiFPN(
        build_stack(inputs, network, max_depth=max_depth, normalise=normalise),
        network,
        fusion=fusion,
        metres=DepthHead(head, max_depth=max_depth, inputs=inputs, channels=HEAD_WIDTH, completion=completion),
    )
