"""Encoders: planes in, feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size out."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError  # to be caught; nothing is unpickled here
from typing import Literal

import torch
from torch import Tensor, nn

from depthray.errors import UsageError
from depthray.models._blocks import group_norm
from depthray.models._inputs import image_slice, plane_count

# what torch.load raises on bytes that are no weights, by where in the file it stumbles
UNREADABLE = (UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError)
EncoderName = Literal["resnet34", "resnet18", "tiny"]


class Encoder(nn.Module):
    """What a decoder may rely on: the channels of the five feature maps, finest first, and their norm."""

    channels: tuple[int, ...]

    def norm(self, channels: int) -> nn.Module:
        """The kind of norm this encoder uses, for a decoder that goes with it."""
        return nn.BatchNorm2d(channels)


class ResNet(Encoder):
    """torchvision's ResNet without its classifier; the weights keep torchvision's names."""

    channels = (64, 64, 128, 256, 512)

    def __init__(self, name: Literal["resnet18", "resnet34"]) -> None:
        super().__init__()
        from torchvision.models import get_model

        whole = get_model(name, weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4

    def forward(self, planes: Tensor) -> list[Tensor]:
        """(B,C,H,W) planes -> five maps (B,c,h,w), finest first."""
        features: list[Tensor] = [self.relu(self.bn1(self.conv1(planes)))]
        features.append(self.layer1(self.maxpool(features[-1])))
        for layer in (self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features


class Residual(nn.Module):
    """Two 3x3 convolutions with group norm beside a 1x1 shortcut, halving the size."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(taken, given, 3, stride=2, padding=1, bias=False)
        self.norm1 = group_norm(given)
        self.conv2 = nn.Conv2d(given, given, 3, padding=1, bias=False)
        self.norm2 = group_norm(given)
        self.shortcut = nn.Conv2d(taken, given, 1, stride=2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,c,H/2,W/2)"""
        inner = self.relu(self.norm1(self.conv1(features)))
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
        self.stages = nn.ModuleList(Residual(taken, given) for taken, given in pairs)

    def norm(self, channels: int) -> nn.Module:
        """GroupNorm, so that no part depends on the other images of a batch."""
        return group_norm(channels)

    def forward(self, planes: Tensor) -> list[Tensor]:
        """(B,C,H,W) planes -> five maps (B,c,h,w), finest first."""
        features = [self.relu(self.norm1(self.conv1(planes)))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


def build_encoder(name: EncoderName, inputs: tuple[str, ...], *, pretrained: bool | str = False) -> Encoder:
    """The encoder with its weights, its first convolution as wide as the inputs."""
    encoder = Tiny() if name == "tiny" else ResNet(name)
    if pretrained:
        _load(encoder, _weights(name, pretrained), where=f"model.pretrained={pretrained}")
    encoder.conv1 = widen(encoder.conv1, inputs)
    return encoder


def widen(convolution: nn.Conv2d, inputs: tuple[str, ...]) -> nn.Conv2d:
    """An RGB convolution for these inputs: the same answer to the image, weights of all other planes 0."""
    image = image_slice(inputs)
    if inputs == ("image",):
        return convolution
    wide = nn.Conv2d(
        plane_count(inputs),
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        bias=False,
    )
    if image is not None:
        with torch.no_grad():
            wide.weight.zero_()
            wide.weight[:, image] = convolution.weight
    return wide


def _weights(name: EncoderName, pretrained: Literal[True] | str) -> dict[str, Tensor]:
    return _downloaded(name) if pretrained is True else _read(Path(pretrained))


def _downloaded(name: EncoderName) -> dict[str, Tensor]:
    if name == "tiny":
        raise UsageError("model.pretrained=true: no ImageNet weights for encoder 'tiny'; use resnet18 or resnet34")
    from torchvision.models import get_model_weights

    try:
        weights: dict[str, Tensor] = get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"model.pretrained=true: ImageNet weights of {name} could not be fetched ({_one_line(error)}); "
            "give a downloaded file instead: model.pretrained=path/to/weights.pth"
        ) from None
    return weights


def _read(path: Path) -> dict[str, Tensor]:
    where = f"model.pretrained={path}"
    if not path.is_file():
        raise UsageError(f"{where}: no such file; give a .pth or .safetensors file of weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, where=where)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UsageError(f"{where}: not a file of weights only ({_one_line(error)})") from None
    if not isinstance(loaded, dict):
        raise UsageError(f"{where}: holds a {type(loaded).__name__}, not weights by name")
    return loaded


def _read_safetensors(path: Path, *, where: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{where}: not a readable safetensors file ({_one_line(error)})") from None


def _load(encoder: Encoder, weights: dict[str, Tensor], *, where: str) -> None:
    """Every weight must be there and fit; only a classifier is dropped."""
    kept = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    try:
        missing, unexpected = encoder.load_state_dict(kept, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(f"{where}: does not fit the encoder ({_one_line(error)})") from None
    lacking = [key for key in missing if not key.endswith("num_batches_tracked")]
    if lacking or unexpected:
        word, key = ("lacks", lacking[0]) if lacking else ("has the unknown", unexpected[0])
        raise UsageError(f"{where}: {word} weight '{key}'; give weights of the encoder named by model.encoder")


def _one_line(error: Exception) -> str:
    """The first sentence of a message that may run over many lines."""
    return " ".join(str(error).split())[:160] or type(error).__name__
