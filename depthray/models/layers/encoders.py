"""Encoders: stacked inputs in, feature maps out, finest first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from depthray.models.layers import timm_encoder
from depthray.models.layers.blocks import group_norm
from depthray.models.layers.efficientnet_lite import SCALES, EfficientNetLite
from depthray.models.layers.encoder import Encoder, widen
from depthray.models.layers.inputs import InputStack

Normalise = Literal["imagenet", "none"]
EncoderName = (  # for decoders that take one map of each size
    Literal[
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "efficientnet_b0",
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
        "tiny",
    ]
    | Annotated[str, Field(pattern=r"^timm/.+")]
)
RESIDUAL = 0.2  # weight of a bottleneck's residual before training
EFFICIENTNET_CHANNELS = (32, 16, 24, 40, 80, 112, 192, 320, 1280)
LAST_OF_A_SIZE = (1, 2, 3, 5, 7)  # of the nine maps; the last one, for the classifier, is left out


class ResNet(Encoder):
    """torchvision's ResNet without its classifier; the weights keep torchvision's names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import get_model

        # Without weights: those that a network starts from are loaded and verified elsewhere.
        resnet = get_model(name, weights=None)
        self.imagenet = name
        _weaken_residuals(resnet)
        coarsest = resnet.fc.in_features
        self.channels = (64, coarsest // 8, coarsest // 4, coarsest // 2, coarsest)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """(B,C,H,W) inputs -> five maps (B,c,h,w), finest first."""
        features: list[Tensor] = [self.relu(self.bn1(self.conv1(inputs)))]  # (B,64,H/2,W/2)
        features.append(self.layer1(self.maxpool(features[-1])))  # (B,c,H/4,W/4)
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
        features = [self.relu(self.norm1(self.conv1(inputs)))]  # (B,16,H/2,W/2)
        for stage in self.stages:
            features.append(stage(features[-1]))  # half the size each time
        return features


class EfficientNet(Encoder):
    """torchvision's EfficientNet-B0 without its classifier; the weights keep torchvision's names.

    Maps at 1/2 to 1/32 of the size; with `every_stage` nine: 1/2, 1/2, 1/4, 1/8, 1/16, 1/16, 1/32, 1/32 and 1/32.
    """

    imagenet = "efficientnet_b0"

    def __init__(self, *, every_stage: bool) -> None:
        super().__init__()
        from torchvision.models import get_model

        features = get_model("efficientnet_b0", weights=None).features
        if every_stage:
            self.channels = EFFICIENTNET_CHANNELS
            self.taps = tuple(range(len(EFFICIENTNET_CHANNELS)))
        else:
            self.taps = LAST_OF_A_SIZE
            self.channels = tuple(EFFICIENTNET_CHANNELS[tap] for tap in self.taps)
            features = features[: self.taps[-1] + 1]  # stages beyond the last map would get no gradient
        self.features = features

    def widen(self, inputs: tuple[str, ...]) -> None:
        """Make the first convolution as wide as the inputs."""
        widen(self.features[0][0], inputs)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """(B,C,H,W) inputs -> maps (B,c,h,w), finest first."""
        maps = [inputs]
        for stage in self.features:
            maps.append(stage(maps[-1]))
        return [maps[tap + 1] for tap in self.taps]  # maps[0] is the input itself


RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
ENCODERS: dict[str, Callable[[], Encoder]] = {
    **{name: partial(ResNet, name) for name in RESNETS},
    "tiny": Tiny,
}
# Those with more than one map of a size; a decoder asks for all of them, or for the last of each size.
STAGED: dict[str, Callable[..., Encoder]] = {
    "efficientnet_b0": EfficientNet,
    **{name: partial(EfficientNetLite, name) for name in SCALES},
}


def build_encoder(name: str, inputs: tuple[str, ...], *, every_stage: bool = False) -> Encoder:
    """An encoder of ENCODERS or STAGED, its first convolution as wide as the inputs."""
    if name.startswith(timm_encoder.PREFIX):
        encoder: Encoder = timm_encoder.TimmEncoder(name)
    else:
        encoder = STAGED[name](every_stage=every_stage) if name in STAGED else ENCODERS[name]()
    encoder.name = name
    encoder.widen(inputs)
    return encoder


def build_stack(inputs: tuple[str, ...], encoder: Encoder, *, max_depth: float, normalise: Normalise) -> InputStack:
    """The inputs stacked; colour as the encoder's published weights expect it, or left in [0,1]."""
    if normalise == "none":
        return InputStack(inputs, max_depth=max_depth, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return InputStack(inputs, max_depth=max_depth, mean=encoder.mean, std=encoder.std)
