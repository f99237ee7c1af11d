"""MaskNet3 (seed system 004): the foreground object as logits, from a scene with and without it, at the input's size.

Background and image pass one convolution each, with weights of their own; three more compare the two, all at full
size. The receptive field is seven pixels across, which is enough: the mask is where the two differ.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from depthray.batch import Batch, Prediction
from depthray.errors import UsageError
from depthray.models.layers.encoder import widen
from depthray.models.layers.inputs import InputStack

WIDTHS = (32, 64)  # of each branch, of what compares them
FOREGROUND = 0.05  # share of pixels taken for foreground before training: it is 5.2 % of the original's data set


class MaskNet3(nn.Module):
    """A branch for the background, one for the image, three convolutions over both to logits."""

    stride = 1  # everything happens at full size
    outputs = ("mask",)

    def __init__(self, inputs: tuple[str, ...], *, max_depth: float) -> None:
        super().__init__()
        self.inputs = inputs
        branch, width = WIDTHS
        self.background_stack, self.image_stack = branch_stacks(inputs, max_depth=max_depth)
        self.background = nn.Sequential(*layers(3, branch))
        self.image = nn.Sequential(*layers(3, branch))
        self.image[0] = widen(self.image[0], self.image_stack.inputs)  # type: ignore[arg-type]
        self.compare = nn.Sequential(*layers(2 * branch, width), *layers(width, width))
        self.head = mask_head(width)

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,H,W) mask logits, float32"""
        background = self.background(self.background_stack(batch))  # (B,32,H,W), as the image's
        image = self.image(self.image_stack(batch))
        features = self.compare(torch.cat([background, image], dim=1))  # (B,32+32,H,W) -> (B,64,H,W)
        return {"mask": self.head(features).float()}


def branch_stacks(inputs: tuple[str, ...], *, max_depth: float) -> tuple[InputStack, InputStack]:
    """The stack of the background, and that of the image together with every further input."""
    for key in ("background", "image"):
        if key not in inputs:
            raise UsageError(f"data.inputs: this model compares image and background; add '{key}' to data.inputs")
    others = tuple(key for key in inputs if key != "background")
    return InputStack(("background",), max_depth=max_depth), InputStack(others, max_depth=max_depth)


def layers(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """A 3x3 convolution, batch norm and ReLU. The convolution keeps the bias it had in the original."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)


def mask_head(width: int) -> nn.Conv2d:
    """The last convolution, starting around FOREGROUND; from one half, it would first have to learn that few are."""
    head = nn.Conv2d(width, 1, 1)
    nn.init.constant_(head.bias, math.log(FOREGROUND / (1 - FOREGROUND)))  # type: ignore[arg-type]
    return head


def build(
    *,
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    inputs: tuple[str, ...] = ("background", "image"),
) -> MaskNet3:
    """The network of a recipe's `model` section. `max_depth` scales only an input of sparse depths.

    Inputs beyond background and image join the image's branch, whose first convolution grows with them.
    """
    return MaskNet3(inputs, max_depth=max_depth)
