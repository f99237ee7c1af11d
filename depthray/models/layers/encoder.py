"""What a decoder may rely on in any encoder, and first convolutions for more inputs than an image."""

from __future__ import annotations

import math

import torch
from torch import nn

from depthray.models.layers.inputs import IMAGENET_MEAN, IMAGENET_STD, image_slice, input_channels

RGB = tuple[float, float, float]


class Encoder(nn.Module):
    """Inputs in, feature maps out, finest first: one for each size, each half of the one before, rounded up.

    Most have five maps, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size.
    """

    channels: tuple[int, ...]  # of the maps
    mean: RGB = IMAGENET_MEAN  # of the images in [0,1] that its published weights were trained on
    std: RGB = IMAGENET_STD
    stride: int = 1  # of which the sides of its inputs must be multiples
    name: str = ""
    imagenet: str = ""  # where its ImageNet weights are, as `model.weights` names them; "" where there are none

    def norm(self, channels: int) -> nn.Module:
        """The kind of norm this encoder uses, for a decoder that goes with it."""
        return nn.BatchNorm2d(channels)

    def widen(self, inputs: tuple[str, ...]) -> None:
        """Make the first convolution as wide as the inputs."""
        self.conv1: nn.Conv2d = widen(self.conv1, inputs)


def widen(convolution: nn.Conv2d, inputs: tuple[str, ...]) -> nn.Conv2d:
    """Give an RGB convolution these inputs, in place: the same output for the image, other channels' weights 0."""
    if inputs == ("image",):
        return convolution
    image = image_slice(inputs)
    narrow = convolution.weight
    shape = (narrow.shape[0], input_channels(inputs), *narrow.shape[2:])
    wide = torch.empty(shape, dtype=narrow.dtype, device=narrow.device)
    if image is None:
        nn.init.kaiming_uniform_(wide, a=math.sqrt(5))  # as torch initialises convolutions
    else:
        with torch.no_grad():
            wide.zero_()  # further inputs change nothing at first, so that pretrained features survive
            wide[:, image] = narrow
    convolution.weight = nn.Parameter(wide)
    convolution.in_channels = shape[1]
    return convolution
