"""DepthMaskNet8 (seed system 004): foreground mask and metres, from a scene with and without its foreground object.

A stem and an encoder each for background and image; their maps, joined, go down to 1/16 of the size, and from there
four decoders up to the mask. One encoder more, to 1/32, and five decoders up give the depth. A decoder adds the map
of its size on the way down; the depth decoders then add the maps of the mask decoders of their size, for where the
object is, depth jumps.

The original's picture shows all four mask decoders feeding the depth (`wiring: all`). Its code fed the two coarsest,
added the joined map a second time where the third belongs, and left the fourth out (`wiring: code`).
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.models.layers.blocks import upsample
from depthray.models.layers.depth_head import Completion, DepthHead
from depthray.models.layers.encoder import widen
from depthray.models.masknet import branch_stacks, layers, mask_head

STEM = 16  # channels at full size and, of each branch, at half size
JOINED = (2 * STEM, 64, 128, 256, 512)  # channels at 1/2 to 1/32 of the size
Wiring = Literal["all", "code"]
VARIANTS: dict[str, dict[str, Any]] = {"depthmasknet-code": {"wiring": "code"}}


class EncoderBlock(nn.Module):
    """Halve the size: pooled and convolved twice, plus a 1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.MaxPool2d(2), *layers(in_channels, out_channels), *layers(out_channels, out_channels)
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,c,H/2,W/2)"""
        # Ends in a ReLU of its own before the sum, as in the original.
        main = self.main(features)
        return F.relu(main + self.shortcut(features))


class DecoderBlock(nn.Module):
    """Double the size: narrow, upsample, add the map of that size from the way down, convolve twice."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(in_channels, out_channels, 1)  # before upsampling, where it has a quarter of the pixels
        self.refine = nn.Sequential(*layers(out_channels, out_channels), *layers(out_channels, out_channels))

    def forward(self, features: Tensor, lateral: Tensor) -> Tensor:
        """(B,C,h,w) features, (B,c,H,W) lateral -> (B,c,H,W)"""
        size = (lateral.shape[-2], lateral.shape[-1])
        refined: Tensor = self.refine(upsample(self.narrow(features), size, corners=False) + lateral)
        return refined


class DepthMaskNet8(nn.Module):
    """Two branches, a common way down, one way up to the mask and a deeper one to the depth."""

    stride = 32  # five halvings: of an odd side, pooling and the shortcut's convolution make two sizes
    outputs = ("depth", "mask")

    def __init__(
        self, inputs: tuple[str, ...], *, wiring: Wiring, max_depth: float, completion: Completion | None = None
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.wiring = wiring
        self.background_stack, self.image_stack = branch_stacks(inputs, max_depth=max_depth)
        self.background, self.image = _stem(), _stem()
        self.image[0] = widen(self.image[0], self.image_stack.inputs)  # type: ignore[arg-type]
        self.background_encoder, self.image_encoder = EncoderBlock(STEM, STEM), EncoderBlock(STEM, STEM)
        self.encoders = nn.ModuleList(EncoderBlock(*pair) for pair in itertools.pairwise(JOINED))
        self.mask_decoders = _decoders(JOINED[-2::-1])  # they take 256 to 32 channels, from 1/16
        self.mask_head = mask_head(STEM)
        self.depth_decoders = _decoders(JOINED[::-1])  # they take 512 to 32 channels, from 1/32
        self.depth_head = nn.Conv2d(STEM, 1, 1)
        self.metres = DepthHead("sigmoid", max_depth=max_depth, inputs=inputs, channels=STEM, completion=completion)
        self.metres.init_bias(self.depth_head)

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,H,W) depth in metres and mask logits, float32"""
        *laterals, coarse = self._down(batch)
        mask_maps = _up(self.mask_decoders, coarse, laterals)  # four maps, 1/8 to full size
        mask = self.mask_head(mask_maps[-1]).float()  # (B,1,H,W)
        deep = self.encoders[-1](coarse)  # (B,512,H/32,W/32)
        features = _up(self.depth_decoders, deep, [*laterals, coarse], extras=self._extras(mask_maps, laterals))[-1]
        return {**self.metres.predict(self.depth_head(features), batch, features), "mask": mask}

    def _down(self, batch: Batch) -> list[Tensor]:
        """(B,C,H,W) inputs -> five maps (B,c,h,w), of the image at full size, then joined at 1/2 to 1/16."""
        background = self.background(self.background_stack(batch))
        image = self.image(self.image_stack(batch))
        halves = [self.background_encoder(background), self.image_encoder(image)]
        maps = [image, torch.cat(halves, dim=1)]  # (B,16,H,W), (B,16+16,H/2,W/2)
        for encoder in self.encoders[:-1]:
            maps.append(encoder(maps[-1]))  # (B,64,H/4,W/4), (B,128,H/8,W/8), (B,256,H/16,W/16)
        return maps

    def _extras(self, mask_maps: list[Tensor], laterals: list[Tensor]) -> list[Tensor | None]:
        """What is added to each depth decoder's output, coarsest first; None at 1/16, where no mask is decoded."""
        if self.wiring == "code":
            # laterals[1] is the joined map (B,32,H/2,W/2), which the decoder there has added already.
            return [None, *mask_maps[:2], laterals[1], None]
        return [None, *mask_maps]


def _stem() -> nn.Sequential:
    return nn.Sequential(*layers(3, STEM), *layers(STEM, STEM))


def _decoders(widths: tuple[int, ...]) -> nn.ModuleList:
    """One decoder from each width to the next, and a last one to full size."""
    return nn.ModuleList(DecoderBlock(*pair) for pair in zip(widths, (*widths[1:], STEM), strict=True))


def _up(
    decoders: nn.ModuleList, features: Tensor, laterals: list[Tensor], *, extras: list[Tensor | None] | None = None
) -> list[Tensor]:
    """(B,C,h,w) coarsest features, laterals finest first -> the decoders' outputs, coarsest first."""
    outputs: list[Tensor] = []
    for decoder, lateral, extra in zip(decoders, reversed(laterals), extras or [None] * len(laterals), strict=True):
        features = decoder(features, lateral)
        if extra is not None:  # not in place: the last ReLU needs its own output for the gradient
            features = features + extra
        outputs.append(features)
    return outputs


def build(
    *,
    wiring: Wiring = "all",
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    inputs: tuple[str, ...] = ("background", "image"),
    completion: Completion | None = None,
) -> DepthMaskNet8:
    """The network of a recipe's `model` section.

    Inputs beyond background and image join the image's branch, whose first convolution grows with them.
    """
    return DepthMaskNet8(inputs, wiring=wiring, max_depth=max_depth, completion=completion)
