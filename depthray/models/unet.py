"""U-Net on a pretrained encoder (seed system 001: ResNet-34): metres = max_depth * sigmoid, at the size of the input.

Each step up upsamples, joins the encoder's map of that size and convolves. The original built norm and activation into
these steps without calling them, so that its decoder was linear: `decoder: linear` is that network, `fixed` calls them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.models.layers.blocks import upsample
from depthray.models.layers.depth_head import Completion, DepthHead
from depthray.models.layers.encoder import Encoder
from depthray.models.layers.encoders import STAGED, EncoderName, build_encoder, build_stack
from depthray.models.layers.inputs import InputStack

# Of the steps up, coarsest first. A decoder as wide as the original's would take more time than a small encoder.
WIDTHS = {"tiny": (64, 40, 24, 16), **dict.fromkeys(STAGED, (128, 64, 32, 16))}
RESNET_WIDTHS = (256, 128, 64, 32)  # as in the original
VARIANTS = {
    "unet-resnet18": {"encoder": "resnet18"},
    "unet-resnet50": {"encoder": "resnet50"},
    "unet-tiny": {"encoder": "tiny"},
    "unet-linear": {"decoder": "linear"},
    "unet-lite0": {"encoder": "efficientnet_lite0"},
}


class UpBlock(nn.Module):
    """One step up: upsample to the skip's size, concatenate, convolve."""

    def __init__(self, in_channels: int, out_channels: int, *, after: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.after = after

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """(B,C,h,w) features, (B,S,H,W) skip -> (B,c,H,W)"""
        upsampled = upsample(features, (skip.shape[-2], skip.shape[-1]))  # (B,C,H,W)
        joined: Tensor = self.after(self.conv(torch.cat([upsampled, skip], dim=1)))  # (B,C+S,H,W) -> (B,c,H,W)
        return joined


class UNet(nn.Module):
    """Encoder, four steps up, one convolution to logits."""

    def __init__(
        self,
        stack: InputStack,
        encoder: Encoder,
        *,
        widths: tuple[int, ...],
        linear: bool,
        max_depth: float,
        completion: Completion | None = None,
    ) -> None:
        super().__init__()
        self.inputs = stack.inputs
        self.stack = stack
        self.encoder = encoder
        self.stride = encoder.stride  # each step up upsamples to its skip, so the decoder takes any size
        below = (encoder.channels[-1], *widths[:-1])  # channels that each step up gets from below
        skips = encoder.channels[-2::-1]  # and from the encoder: at 1/16 to 1/2 of the size
        self.decoder = nn.ModuleList(
            UpBlock(channels + skip, width, after=nn.Identity() if linear else _norm_and_activation(encoder, width))
            for channels, skip, width in zip(below, skips, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self.metres = DepthHead(
            "sigmoid", max_depth=max_depth, inputs=stack.inputs, channels=widths[-1], completion=completion
        )
        self.metres.init_bias(self.head)

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,H,W) depth in metres, float32"""
        stacked = self.stack(batch)
        features, *skips = reversed(self.encoder(stacked))  # (B,c,H/32,W/32), then 1/16 to 1/2
        for up, skip in zip(self.decoder, skips, strict=True):
            features = up(features, skip)  # (B,c,H/16,W/16) to (B,c,H/2,W/2)
        # Logits, not metres, are upsampled, as in the original: the sigmoid comes last.
        logits = upsample(self.head(features).float(), (stacked.shape[-2], stacked.shape[-1]))
        return self.metres.predict(logits, batch, features)


def _norm_and_activation(encoder: Encoder, width: int) -> nn.Module:
    # The slope 0.2 is that of the original, which built this and did not call it.
    return nn.Sequential(encoder.norm(width), nn.LeakyReLU(0.2, inplace=True))


def build(
    *,
    encoder: EncoderName = "resnet34",
    decoder: Literal["fixed", "linear"] = "fixed",
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    inputs: tuple[str, ...] = ("image",),
    completion: Completion | None = None,
) -> UNet:
    """The network of a recipe's `model` section."""
    network = build_encoder(encoder, inputs)
    return UNet(
        build_stack(inputs, network, max_depth=max_depth, normalise="imagenet"),
        network,
        widths=WIDTHS.get(encoder, RESNET_WIDTHS)[: len(network.channels) - 1],
        linear=decoder == "linear",
        max_depth=max_depth,
        completion=completion,
    )
