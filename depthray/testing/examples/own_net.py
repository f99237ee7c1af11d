"""A network of one's own: three convolutions at half the size of the image. Train it with model.name=./THIS_FILE.py.

`build` makes it; its keyword arguments are keys of the recipe's `model` section, checked by their annotations. Check a
change with python -m depthray.testing ./THIS_FILE.py.
"""

from __future__ import annotations

from torch import nn

from depthray.batch import Batch, Prediction
from depthray.models.layers.blocks import upsample
from depthray.models.layers.depth_head import DepthHead
from depthray.models.layers.inputs import InputStack, input_channels


class OwnNet(nn.Module):
    """Images (B,3,H,W) in [0,1], and whatever else data.inputs names -> depth (B,1,H,W) in metres."""

    stride = 2  # heights and widths arrive as multiples of it

    def __init__(self, inputs: tuple[str, ...], *, width: int, max_depth: float) -> None:
        super().__init__()
        self.inputs = inputs
        self.stack = InputStack(inputs, max_depth=max_depth)  # normalises colours, stacks all inputs
        self.layers = nn.Sequential(
            nn.Conv2d(input_channels(inputs), width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        self.metres = DepthHead("sigmoid", max_depth=max_depth, inputs=inputs)
        self.metres.init_bias(self.last)  # untrained, it predicts depths of a room

    def forward(self, batch: Batch) -> Prediction:
        """Predict depth; metres are computed in float32, under autocast too."""
        stacked = self.stack(batch)
        features = self.layers(stacked)
        logits = upsample(self.last(features).float(), stacked.shape[-2:])
        return {"depth": self.metres(logits, batch, features)}


def build(*, width: int = 32, max_depth: float = 10.0, inputs: tuple[str, ...] = ("image",)) -> OwnNet:
    """The network with random weights; `inputs` are data.inputs."""
    return OwnNet(inputs, width=width, max_depth=max_depth)
