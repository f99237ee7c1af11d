"""Encoders: stacked inputs in, feature maps out, finest first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from depthray.models.layers.blocks import group_norm
from depthray.models.layers.inputs import InputStack, image_slice, input_channels
from depthray.models.layers.weights import load_weights

Normalise = Literal["imagenet", "none"]
RESIDUAL = 0.2  # weight of a bottleneck's residual before training


class Encoder(nn.Module):
    """What a decoder may rely on: the channels of the feature maps, finest first, and their norm.

    ResNets and `tiny` give five maps, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size; a side is rounded up each time.
    """

    channels: tuple[int, ...]

    def norm(self, channels: int) -> nn.Module:
        """The kind of norm this encoder uses, for a decoder that goes with it."""
        return nn.BatchNorm2d(channels)

    def widen(self, inputs: tuple[str, ...]) -> None:
        """Make the first convolution as wide as the inputs."""
        self.conv1: nn.Conv2d = widen(self.conv1, inputs)


class ResNet(Encoder):
    """torchvision's ResNet without its classifier; the weights keep torchvision's names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import get_model

        resnet = get_model(name, weights=None)
        _weaken_residuals(resnet)
        coarsest = resnet.fc.in_features
        self.channels = (64, coarsest // 8, coarsest // 4, coarsest // 2, coarsest)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """(B,C,H,W) inputs -> five maps (B,c,h,w), finest first."""
        features: list[Tensor] = [self.relu(self.bn1(self.conv1(inputs)))]
        features.append(self.layer1(self.maxpool(features[-1])))
        for layer in (self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))  # half the size, twice the channels
        return features


def _weaken_residuals(resnet: nn.Module) -> None:
    """Scale down the residuals of bottlenecks; else 33 of them sum to thousands until batch norm has statistics."""
    from torchvision.models.resnet import Bottleneck

    for block in resnet.modules():
        if isinstance(block, Bottleneck):
            nn.init.constant_(block.bn3.weight, RESIDUAL)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm plus a 1x1 shortcut, halving the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = group_norm(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,c,H/2,W/2)"""
        inner = self.relu(self.norm1(self.conv1(features)))  # (B,c,H/2,W/2)
        outer: Tensor = self.relu(self.norm2(self.conv2(inner)) + self.shortcut(features))
        return outer


class Tiny(Encoder):
    """Five stages like a ResNet, small and without batch norm: for demos, tests and exact comparisons."""

    channels = (16, 24, 40, 64, 96)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, self.channels[0], 3, stride=2, padding=1, bias=False)
        self.norm1 = group_norm(self.channels[0])
        self.relu = nn.ReLU(inplace=True)
        pairs = zip(self.channels, self.channels[1:], strict=False)
        self.stages = nn.ModuleList(ResidualBlock(*pair) for pair in pairs)

    def norm(self, channels: int) -> nn.Module:
        """GroupNorm, so that no part depends on the other images of a batch."""
        return group_norm(channels)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """(B,C,H,W) inputs -> five maps (B,c,h,w), finest first."""
        features = [self.relu(self.norm1(self.conv1(inputs)))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class EfficientNet(Encoder):
    """torchvision's EfficientNet-B0 without its classifier; the weights keep torchvision's names.

    Nine maps: at 1/2, 1/2, 1/4, 1/8, 1/16, 1/16, 1/32, 1/32 and 1/32 of the size.
    """

    channels = (32, 16, 24, 40, 80, 112, 192, 320, 1280)

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import get_model

        self.features = get_model("efficientnet_b0", weights=None).features

    def widen(self, inputs: tuple[str, ...]) -> None:
        """Make the first convolution as wide as the inputs."""
        self.features[0][0] = widen(self.features[0][0], inputs)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """(B,C,H,W) inputs -> nine maps (B,c,h,w), finest first."""
        maps = [inputs]
        for stage in self.features:
            maps.append(stage(maps[-1]))
        return maps[1:]


RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
ENCODERS: dict[str, Callable[[], Encoder]] = {
    **{name: partial(ResNet, name) for name in RESNETS},
    "efficientnet_b0": EfficientNet,
    "tiny": Tiny,
}


def build_encoder(name: str, inputs: tuple[str, ...], *, pretrained: bool | str = False) -> Encoder:
    """The encoder of ENCODERS with its weights, its first convolution as wide as the inputs."""
    encoder = ENCODERS[name]()
    if pretrained:  # before widening: the weights are of an RGB image
        load_weights(encoder, name, pretrained)
    encoder.widen(inputs)
    return encoder


def build_stack(inputs: tuple[str, ...], *, max_depth: float, normalise: Normalise) -> InputStack:
    """The inputs stacked; colour as ImageNet weights expect it, or left in [0,1]."""
    stack = InputStack(inputs, max_depth=max_depth)
    if normalise == "none":
        stack.mean.zero_()
        stack.std.fill_(1.0)
    return stack


def widen(convolution: nn.Conv2d, inputs: tuple[str, ...]) -> nn.Conv2d:
    """An RGB convolution for these inputs: the same output for the image, weights of all other channels 0."""
    image = image_slice(inputs)
    if inputs == ("image",):
        return convolution
    wide = nn.Conv2d(
        input_channels(inputs),
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        bias=convolution.bias is not None,
    )
    if wide.bias is not None:
        wide.bias = convolution.bias
    if image is not None:
        with torch.no_grad():
            wide.weight.zero_()  # further inputs change nothing at first, so that pretrained features survive
            wide.weight[:, image] = convolution.weight
    return wide
