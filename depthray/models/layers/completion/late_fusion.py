"""Late fusion: samples that join once a network has seen everything else, at the full size of its inputs.

The network predicts the shape c of ln depth without them, so that START * max_depth * e^c is its depth without samples:
one pass gives both depths, and both can be trained at each step (loss.monocular). Here the shape is corrected, by how
far the samples S are from what it says: ln of the ratios S e^-c, spread over the map, less their mean. So samples that
are all twice as far away double the depth and correct its shape in the same way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.batch import Batch
from depthray.models.layers.blocks import unit_colour, unit_size, upsample
from depthray.models.layers.inputs import fill_sparse

HINTS = 16  # channels of what is seen of the samples and of colour
WIDTH = 24  # channels of the features that this step gives
CONTRAST = 4.0  # of the ratios, whose logarithms are tenths
SLOPE = 0.2  # of activations below 0


class LateFusion(nn.Module):
    """Shape and features of any size to those of the full size that samples are part of; at first the same shape."""

    def __init__(self, channels: int, *, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.has_image = "image" in inputs
        self.hints = nn.Conv2d(2 + 3 * self.has_image, HINTS, 3, padding=1)
        self.join = nn.Conv2d(channels + HINTS, WIDTH, 3, padding=1)
        self.correct = nn.Conv2d(WIDTH, 1, 3, padding=1)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)  # type: ignore[arg-type]

    def forward(self, shape: Tensor, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,1,H,W) shape of ln depth, (B,C,h,w) features, inputs -> (B,1,H,W) shape, (B,WIDTH,H,W) features

        The shape of an image without samples stays as it is.
        """
        samples = batch["sparse"].float()
        known = (samples > 0).to(samples.dtype)
        parts = [_levels(samples, shape.detach()), known]
        if self.has_image:
            parts.append(unit_colour(batch["image"]))
        hints = F.leaky_relu(self.hints(torch.cat(parts, dim=1)), SLOPE)  # (B,HINTS,H,W)
        resized = upsample(unit_size(features), (shape.shape[-2], shape.shape[-1]), corners=False)
        joined = F.leaky_relu(self.join(torch.cat([resized, hints.float()], dim=1)), SLOPE)  # (B,WIDTH,H,W)
        is_sampled = known.amax(dim=(2, 3), keepdim=True)  # (B,1,1,1)
        return shape + is_sampled * self.correct(joined).float(), joined


def _levels(samples: Tensor, shape: Tensor) -> Tensor:
    """(B,1,H,W) metres or 0, shape of ln depth -> (B,1,H,W) ln of their ratios, spread, less the mean of an image"""
    spread = fill_sparse(samples * (-shape).exp())
    levels = torch.where(spread > 0, spread, 1.0).log()
    return CONTRAST * (levels - levels.mean(dim=(2, 3), keepdim=True))
