"""EfficientNet-B0 with three BiFPN blocks side by side (seed system 003): metres at a quarter of the input's size.

A block carries five maps of the encoder down to finer ones and back up to coarser ones; each node weighs its inputs,
convolves them channel by channel, bends and normalises. Its two finest answers are laid out as pixels. The three
blocks' answers, plus a shortcut from the image, pass an inception layer and two separable convolutions.

In the original the nodes' weights were plain tensors, never trained; node `td6` added its weights instead of dividing
by them, the divisor of `out5` lacked one of them, and its answers `out5` to `out7` went nowhere: `fusion: constant` is
that network, with those three nodes frozen. `fusion: trainable` trains the weights, divides by all of them, and adds
the three coarse answers to `out4`. The original's head was ReLU6 on depths relative to the farthest (`head: relu6`,
1 = max_depth), its colours in [0,1] (`normalise: none`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.models._blocks import Metres
from depthray.models._encoders import Encoder, Normalise, build_encoder, planes_for, widen
from depthray.models._inputs import Planes, guide

WIDTH = 64
BLOCKS = 3
LEVELS = (3, 5, 6, 7, 8)  # maps of EfficientNet-B0: one at 1/8, one at 1/16, three at 1/32
EPSILON = 1e-4
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


class Trainable(nn.Module):
    """Mean of maps by trained weights. They count by size: one that crosses 0 goes on learning."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """n maps (B,C,h,w) -> (B,C,h,w)"""
        weight = self.weight.abs()
        shares = weight / (weight.sum() + EPSILON)
        return torch.stack([share * values for share, values in zip(shares, maps, strict=True)]).sum(dim=0)


class Constant(nn.Module):
    """Sum of maps over a divisor, plus an offset: what the original came to. Holds no weights."""

    def __init__(self, divisor: float, *, offset: float) -> None:
        super().__init__()
        self.divisor = divisor
        self.offset = offset

    def forward(self, maps: list[Tensor]) -> Tensor:
        """n maps (B,C,h,w) -> (B,C,h,w)"""
        return torch.stack(maps).sum(dim=0) / self.divisor + self.offset


class Node(nn.Module):
    """Fuse maps of one size, then convolve each channel by itself, bend, normalise: in this order."""

    def __init__(self, fuse: nn.Module) -> None:
        super().__init__()
        self.fuse = fuse
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, *maps: Tensor) -> Tensor:
        """n maps (B,C,h,w) -> (B,C,h,w)"""
        node: Tensor = self.norm(F.gelu(self.conv(self.fuse(list(maps)))))
        return node


class BiFPN(nn.Module):
    """Five maps of the encoder, down to the finest and back up; the answers have the sizes of the maps."""

    def __init__(self, channels: tuple[int, ...], *, fusion: Fusion) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(taken, WIDTH, 3, padding=1) for taken in channels)
        self.node = nn.ModuleDict({name: Node(_fuse(name, fusion=fusion)) for name in NODES})

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """five maps (B,c,h,w) at 1/8, 1/16, 1/32, 1/32, 1/32 -> five (B,64,h,w)"""
        node = self.node
        in3, in4, in5, in6, in7 = (lateral(level) for lateral, level in zip(self.lateral, levels, strict=True))
        td6 = node["td6"](in6, in7)
        td5 = node["td5"](in5, td6)
        td4 = node["td4"](in4, _double(td5))
        out3 = node["out3"](in3, _double(td4))
        out4 = node["out4"](in4, td4, F.max_pool2d(out3, 2))
        out5 = node["out5"](in5, td5, F.max_pool2d(out4, 2))
        out6 = node["out6"](in6, td6, out5)
        return [out3, out4, out5, out6, node["out7"](in7, out6)]


class Block(nn.Module):
    """A BiFPN and its answers laid out as pixels at a quarter of the image's size."""

    given = WIDTH // 4 + WIDTH // 16

    def __init__(self, channels: tuple[int, ...], *, fusion: Fusion) -> None:
        super().__init__()
        self.bifpn = BiFPN(channels, fusion=fusion)
        self.norm = nn.BatchNorm2d(self.given)
        self.coarse = fusion == "trainable"
        if not self.coarse:  # nothing uses them, and parameters without a gradient stop training on several processes
            for name in COARSE:
                self.bifpn.node[name].requires_grad_(False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """five maps (B,c,h,w) -> (B,20,H/4,W/4)"""
        out3, out4, *coarse = self.bifpn(levels)
        if self.coarse:
            out4 = out4 + _double(torch.stack(coarse).mean(dim=0))
        pixels = torch.cat([F.pixel_shuffle(out3, 2), F.pixel_shuffle(out4, 4)], dim=1)
        return F.gelu(self.norm(pixels))


class Inception(nn.Module):
    """Three branches of different reach beside a 1x1 shortcut: 48 + 48 + 32 + 32 + 16 channels."""

    given = 176

    def __init__(self, taken: int, *, base: int = 16) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(taken, base, 1), nn.Conv2d(base, 2 * base, 3, padding=1))
        self.wide_ends = _row_and_column(2 * base, 3 * base)
        self.middle = nn.Conv2d(taken, base, 1)
        self.middle_ends = _row_and_column(base, 2 * base)
        self.narrow = nn.Conv2d(taken, base, 1)
        self.shortcut = nn.Conv2d(taken, self.given, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,h,w) -> (B,176,h,w)"""
        wide, middle = self.wide(features), self.middle(features)
        ends = [end(wide) for end in self.wide_ends] + [end(middle) for end in self.middle_ends]
        joined: Tensor = torch.cat([*ends, self.narrow(features)], dim=1) + self.shortcut(features)
        return joined


class EfficientBiFPN(nn.Module):
    """Encoder, three blocks side by side, inception, separable convolutions to logits."""

    stride = 32
    reduction = 4
    idle: tuple[str, ...] = ()  # patterns of parameter names that no answer depends on

    def __init__(self, planes: Planes, encoder: Encoder, *, fusion: Fusion, metres: Metres) -> None:
        super().__init__()
        self.inputs = planes.inputs
        self.planes = planes
        self.encoder = encoder
        channels = tuple(encoder.channels[level] for level in LEVELS)
        if fusion == "constant":
            self.idle = (rf"\.node\.({'|'.join(COARSE)})\.",)
        self.blocks = nn.ModuleList(Block(channels, fusion=fusion) for _ in range(BLOCKS))
        width = BLOCKS * Block.given
        self.shortcut = widen(nn.Conv2d(3, width, 1, bias=False), planes.inputs)
        self.inception = Inception(width)
        last = nn.Conv2d(40, 1, 1)
        self.head = nn.Sequential(
            *_separable(Inception.given, nn.Conv2d(Inception.given, 40, 1)),
            nn.BatchNorm2d(40),
            nn.GELU(),
            *_separable(40, last),
        )
        self.metres = metres
        metres.starts_at(last)

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,H/4,W/4) depth in metres, float32"""
        planes = self.planes(batch)
        maps = self.encoder(planes)
        levels = [maps[level] for level in LEVELS]
        features = torch.cat([block(levels) for block in self.blocks], dim=1)
        features = features + F.max_pool2d(self.shortcut(planes), 4)
        return {"depth": self.metres(self.head(self.inception(features)), guide(batch, self.inputs))}


def _fuse(name: str, *, fusion: Fusion) -> nn.Module:
    if fusion == "trainable":
        return Trainable(NODES[name])
    divisor, offset = ODD.get(name, (NODES[name] + EPSILON, 0.0))
    return Constant(divisor, offset=offset)


def _double(features: Tensor) -> Tensor:
    """(B,C,h,w) -> (B,C,2h,2w), each value four times"""
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


def _row_and_column(taken: int, given: int) -> nn.ModuleList:
    return nn.ModuleList(
        [nn.Conv2d(taken, given, (1, 3), padding=(0, 1)), nn.Conv2d(taken, given, (3, 1), padding=(1, 0))]
    )


def _separable(channels: int, pointwise: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels), pointwise


def build(
    *,
    pretrained: bool | str = False,
    fusion: Fusion = "trainable",
    head: Literal["sigmoid", "relu6"] = "sigmoid",
    normalise: Normalise = "imagenet",
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    inputs: tuple[str, ...] = ("image",),
) -> EfficientBiFPN:
    """The network of a recipe's `model` section.

    `pretrained`: true fetches torchvision's ImageNet weights, a path reads a .pth or .safetensors file of the encoder.
    """
    return EfficientBiFPN(
        planes_for(inputs, max_depth=max_depth, normalise=normalise),
        build_encoder("efficientnet_b0", inputs, pretrained=pretrained),
        fusion=fusion,
        metres=Metres(head, max_depth=max_depth),
    )
