"""DepthMaskNet8 (seed system 004): foreground mask and metres, from a scene with and without its foreground object.

A stem and an encoder each for background and image; their maps, joined, go down to 1/16 of the size, and from there
four decoders up to the mask. One encoder more, to 1/32, and five decoders up give the depth. A decoder adds the map
of its size on the way down; the depth decoders then add what the mask decoders found at their size, for where the
object is, depth jumps.

The original's picture shows all four mask decoders feeding the depth (`wiring: all`). Its code fed the two coarsest,
added the joined map a second time where the third belongs, and left the fourth out (`wiring: code`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.models._blocks import Metres, enlarge
from depthray.models._encoders import widen
from depthray.models._inputs import guide
from depthray.models.masknet import branch_planes, layers, mask_head

STEM = 16  # channels at full size and, of each branch, at half size
JOINED = (2 * STEM, 64, 128, 256, 512)  # channels at 1/2 to 1/32 of the size
Wiring = Literal["all", "code"]
VARIANTS: dict[str, dict[str, Any]] = {"depthmasknet-code": {"wiring": "code"}}


class Encoder(nn.Module):
    """Halve the size: pooled and convolved twice, beside a 1x1 shortcut."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.MaxPool2d(2), *layers(taken, given), *layers(given, given))
        self.shortcut = nn.Sequential(nn.Conv2d(taken, given, 1, stride=2, bias=False), nn.BatchNorm2d(given))

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,c,H/2,W/2)"""
        main = self.main(features)
        return F.relu(main + self.shortcut(features))


class Decoder(nn.Module):
    """Double the size: narrow, enlarge, add the map of that size from the way down, convolve twice."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(taken, given, 1)
        self.refine = nn.Sequential(*layers(given, given), *layers(given, given))

    def forward(self, features: Tensor, lateral: Tensor) -> Tensor:
        """(B,C,h,w) features, (B,c,H,W) lateral -> (B,c,H,W)"""
        size = (lateral.shape[-2], lateral.shape[-1])
        refined: Tensor = self.refine(enlarge(self.narrow(features), size, corners=False) + lateral)
        return refined


class DepthMaskNet8(nn.Module):
    """Two branches, a common way down, one way up to the mask and a deeper one to the depth."""

    stride = 32
    gives = ("depth", "mask")

    def __init__(self, inputs: tuple[str, ...], *, wiring: Wiring, max_depth: float) -> None:
        super().__init__()
        self.inputs = inputs
        self.wiring = wiring
        self.background_planes, self.image_planes = branch_planes(inputs, max_depth=max_depth)
        self.background, self.image = _stem(), _stem()
        self.image[0] = widen(self.image[0], self.image_planes.inputs)  # type: ignore[arg-type]
        self.background_encoder, self.image_encoder = Encoder(STEM, STEM), Encoder(STEM, STEM)
        self.encoders = nn.ModuleList(Encoder(*pair) for pair in zip(JOINED, JOINED[1:], strict=False))
        self.mask_decoders = _decoders(JOINED[-2::-1])
        self.mask_head = mask_head(STEM)
        self.depth_decoders = _decoders(JOINED[::-1])
        self.depth_head = nn.Conv2d(STEM, 1, 1)
        self.metres = Metres("sigmoid", max_depth=max_depth)
        self.metres.starts_at(self.depth_head)

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,H,W) depth in metres and mask logits, float32"""
        *laterals, coarse = self._down(batch)
        found = _up(self.mask_decoders, coarse, laterals)
        mask = self.mask_head(found[-1]).float()
        deep = self.encoders[-1](coarse)
        features = _up(self.depth_decoders, deep, [*laterals, coarse], extras=self._extras(found, laterals))[-1]
        return {"depth": self.metres(self.depth_head(features), guide(batch, self.inputs)), "mask": mask}

    def _down(self, batch: Batch) -> list[Tensor]:
        """(B,C,H,W) inputs -> five maps (B,c,h,w), of the image at full size, then joined at 1/2 to 1/16."""
        background = self.background(self.background_planes(batch))
        image = self.image(self.image_planes(batch))
        halves = [self.background_encoder(background), self.image_encoder(image)]
        maps = [image, torch.cat(halves, dim=1)]
        for encoder in self.encoders[:-1]:
            maps.append(encoder(maps[-1]))
        return maps

    def _extras(self, found: list[Tensor], laterals: list[Tensor]) -> list[Tensor | None]:
        """What each depth decoder's answer gains, coarsest first; nothing at 1/16, where no mask is decoded."""
        if self.wiring == "code":
            return [None, *found[:2], laterals[1], None]
        return [None, *found]


def _stem() -> nn.Sequential:
    return nn.Sequential(*layers(3, STEM), *layers(STEM, STEM))


def _decoders(widths: tuple[int, ...]) -> nn.ModuleList:
    """One decoder from each width to the next, and a last one to full size."""
    return nn.ModuleList(Decoder(*pair) for pair in zip(widths, (*widths[1:], STEM), strict=True))


def _up(
    decoders: nn.ModuleList, features: Tensor, laterals: list[Tensor], *, extras: list[Tensor | None] | None = None
) -> list[Tensor]:
    """(B,C,h,w) coarsest features, laterals finest first -> the decoders' answers, coarsest first."""
    answers: list[Tensor] = []
    for decoder, lateral, extra in zip(decoders, reversed(laterals), extras or [None] * len(laterals), strict=True):
        features = decoder(features, lateral)
        if extra is not None:  # a new tensor: the last ReLU needs its own answer for the gradient
            features = features + extra
        answers.append(features)
    return answers


def build(
    *,
    wiring: Wiring = "all",
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    inputs: tuple[str, ...] = ("background", "image"),
) -> DepthMaskNet8:
    """The network of a recipe's `model` section.

    Inputs beyond background and image join the image's branch, whose first convolution grows with them.
    """
    return DepthMaskNet8(inputs, wiring=wiring, max_depth=max_depth)
