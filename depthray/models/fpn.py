"""Feature pyramid on a ResNet-101 (seed system 002): metres = max_depth * softplus, at a quarter of the input's size.

From the coarsest map up, each level is the upsampled one below plus the encoder's map, smoothed; the smoothed map is
what goes further. The original ended in a ReLU (`head: relu`): once all its outputs are 0 it never learns again, for
no gradient passes. It also fed colours in [0,1] to an encoder trained on normalised ones (`normalise: none`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.models.layers.blocks import upsample
from depthray.models.layers.depth_head import Completion, DepthHead
from depthray.models.layers.encoder import Encoder
from depthray.models.layers.encoders import EncoderName, Normalise, build_encoder, build_stack
from depthray.models.layers.inputs import InputStack

WIDTH = 256  # of every level, as in Lin et al. 2017
HEAD_WIDTH = 64  # channels before the logits
LEVELS = 4  # at 1/4 to 1/32 of the size; a map at 1/2 is not used
VARIANTS: dict[str, dict[str, Any]] = {
    "fpn-resnet50": {"encoder": "resnet50"},
    "fpn-resnet18": {"encoder": "resnet18"},
    "fpn-relu": {"encoder": "resnet18", "head": "relu", "normalise": "none"},
}


class FPN(nn.Module):
    """Encoder, three levels up from its coarsest map, two convolutions to logits."""

    def __init__(self, stack: InputStack, encoder: Encoder, *, metres: DepthHead) -> None:
        super().__init__()
        self.inputs = stack.inputs
        self.stack = stack
        self.encoder = encoder
        self.stride = encoder.stride  # each level is upsampled to the next finer one, so any size works
        levels = encoder.channels[-LEVELS:]
        # Neither norms nor activations in the pyramid, as in the original and in Lin et al.
        self.lateral = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in levels)
        self.smooth = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in levels[1:])
        last = nn.Conv2d(HEAD_WIDTH, 1, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(WIDTH, HEAD_WIDTH, 3, padding=1), nn.ReLU(inplace=True), last)
        self.metres = metres
        self.reduction = 1 if metres.is_full else 4  # the depth has such a part of the input's height and width
        metres.init_bias(last)

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,ceil(H/4),ceil(W/4)) depth in metres, float32; (B,1,H,W) with samples"""
        levels = self.encoder(self.stack(batch))[-LEVELS:]
        *finer, features = (lateral(level) for lateral, level in zip(self.lateral, levels, strict=True))
        for smooth, level in zip(reversed(self.smooth), reversed(finer), strict=True):
            # Smoothed after the sum, against the aliasing of upsampling (Lin et al.).
            features = smooth(_onto(features, level))  # (B,256,H/32,W/32), then 1/16, 1/8, 1/4
        features = self.head[:-1](features)  # (B,64,H/4,W/4)
        return self.metres.predict(self.head[-1](features), batch, features)


def _onto(coarse: Tensor, fine: Tensor) -> Tensor:
    """(B,C,h,w), (B,C,H,W) -> (B,C,H,W) their sum at the finer size"""
    return upsample(coarse, (fine.shape[-2], fine.shape[-1]), corners=False) + fine


def build(
    *,
    encoder: EncoderName = "resnet101",
    head: Literal["softplus", "relu"] = "softplus",
    normalise: Normalise = "imagenet",
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    inputs: tuple[str, ...] = ("image",),
    completion: Completion | None = None,
) -> FPN:
    """The network of a recipe's `model` section. `max_depth` is the scale of its depths, not their bound."""
    network = build_encoder(encoder, inputs)
    return FPN(
        build_stack(inputs, network, max_depth=max_depth, normalise=normalise),
        network,
        metres=DepthHead(head, max_depth=max_depth, inputs=inputs, channels=HEAD_WIDTH, completion=completion),
    )
