"""EfficientNet-Lite 0 to 2 (Google, 2020): EfficientNet without squeeze-and-excitation, with ReLU6 for swish.

Weights keep the names of the published PyTorch files, whose padding is TensorFlow's "SAME": at stride 2 an even side is
padded at its end only, so that the features of a pretrained network need exactly this padding. Colours are
(x - 127) / 128 of 8-bit values, as Google trained them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from depthray.models.layers.encoder import Encoder, widen

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # for images in [0,1]
STEM = 32
TOP = 1280  # channels before the classifier; like the stem's the same for every width


class Stage(NamedTuple):
    """Blocks of equal width; the first has the stride."""

    kernel: int
    stride: int
    expansion: int  # of the channels between the two 1x1 convolutions
    channels: int
    blocks: int


STAGES = (
    Stage(kernel=3, stride=1, expansion=1, channels=16, blocks=1),
    Stage(kernel=3, stride=2, expansion=6, channels=24, blocks=2),
    Stage(kernel=5, stride=2, expansion=6, channels=40, blocks=2),
    Stage(kernel=3, stride=2, expansion=6, channels=80, blocks=3),
    Stage(kernel=5, stride=1, expansion=6, channels=112, blocks=3),
    Stage(kernel=5, stride=2, expansion=6, channels=192, blocks=4),
    Stage(kernel=3, stride=1, expansion=6, channels=320, blocks=1),
)
SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}


def scale_stages(name: str) -> tuple[Stage, ...]:
    """The stages of a network of SCALES: channels to a multiple of 8, blocks rounded up (Tan and Le 2019)."""
    width, depth = SCALES[name]
    last = len(STAGES) - 1
    return tuple(
        stage._replace(
            channels=_round_channels(stage.channels * width),
            # Lite keeps the number of blocks of its first and last stage.
            blocks=stage.blocks if index in (0, last) else math.ceil(stage.blocks * depth),
        )
        for index, stage in enumerate(STAGES)
    )


def _round_channels(channels: float) -> int:
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest  # rounding may not lose more than a tenth


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ceil(side / stride) pixels a side, padded as TensorFlow does."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        # At stride 1 the padding is the same on both sides, and the convolution does it without a copy.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride=stride, padding=padding, groups=groups, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,c,ceil(H/stride),ceil(W/stride))"""
        if self.stride[0] > 1:
            (top, bottom), (left, right) = (self._padding(side) for side in features.shape[-2:])
            features = F.pad(features, (left, right, top, bottom))
        return super().forward(features)

    def _padding(self, side: int) -> tuple[int, int]:
        """Rows before and after: the odd one comes after."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        # side % stride, not a branch on it: an export with a dynamic size traces this as a formula.
        total = kernel - stride + (-side) % stride
        return total // 2, total - total // 2


class MBConv(nn.Module):
    """Widen by a 1x1 convolution, filter each channel, narrow again; added to the input where the shape allows."""

    def __init__(self, in_channels: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        inner = in_channels * stage.expansion
        self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False) if stage.expansion > 1 else None
        self._bn0 = _norm(inner) if stage.expansion > 1 else None
        self._depthwise_conv = SameConv2d(inner, inner, stage.kernel, stride=stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, stage.channels, 1, bias=False)
        self._bn2 = _norm(stage.channels)
        self.is_residual = stride == 1 and in_channels == stage.channels

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,c,H/stride,W/stride)"""
        inner = features
        if self._expand_conv is not None and self._bn0 is not None:
            inner = F.relu6(self._bn0(self._expand_conv(inner)))  # (B,6C,H,W)
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        narrow: Tensor = self._bn2(self._project_conv(inner))  # no activation: what is narrow may not lose more
        return narrow + features if self.is_residual else narrow


def _norm(channels: int) -> nn.BatchNorm2d:
    # Google's numbers. Its momentum of 0.99 is torch's 0.01: too slow for the few hundred steps of a small data set,
    # so statistics follow at torch's default rate.
    return nn.BatchNorm2d(channels, eps=1e-3)


class EfficientNetLite(Encoder):
    """Without the classifier. Maps at 1/2 to 1/32 of the size; with `every_stage` the nine of an EfficientNet."""

    mean, std = MEAN, STD
    graph_stride = 32  # sides of an exported graph: of these multiples the padding is one, which can be traced

    def __init__(self, name: str, *, every_stage: bool) -> None:
        super().__init__()
        self.imagenet = name
        stages = scale_stages(name)
        self._conv_stem = SameConv2d(3, STEM, 3, stride=2)
        self._bn0 = _norm(STEM)
        blocks: list[MBConv] = []
        channels = STEM
        lasts = []  # numbers of the last blocks of the stages
        for stage in stages:
            for number in range(stage.blocks):
                blocks.append(MBConv(channels, stage, stride=stage.stride if number == 0 else 1))
                channels = stage.channels
            lasts.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)
        self.every_stage = every_stage
        if every_stage:
            self._conv_head = nn.Conv2d(channels, TOP, 1, bias=False)
            self._bn1 = _norm(TOP)
            self.taps = tuple(lasts)
            self.channels = (STEM, *(stage.channels for stage in stages), TOP)
        else:
            # A map for each size: of the last block before the next stride, or before the end.
            ends = [*(index for index, stage in enumerate(stages[1:]) if stage.stride > 1), len(stages) - 1]
            self.taps = tuple(lasts[index] for index in ends)
            self.channels = tuple(stages[index].channels for index in ends)

    def widen(self, inputs: tuple[str, ...]) -> None:
        """Make the first convolution as wide as the inputs."""
        widen(self._conv_stem, inputs)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """(B,C,H,W) inputs -> maps (B,c,h,w), finest first."""
        features = F.relu6(self._bn0(self._conv_stem(inputs)))  # (B,32,H/2,W/2)
        maps = [features] if self.every_stage else []
        for number, block in enumerate(self._blocks):
            features = block(features)
            if number in self.taps:
                maps.append(features)
        if self.every_stage:
            maps.append(F.relu6(self._bn1(self._conv_head(features))))
        return maps
