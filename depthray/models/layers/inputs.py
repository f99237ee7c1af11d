"""From the keys of a batch to the input channels of an encoder's first convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.batch import COLOURS, Batch
from depthray.errors import UsageError, did_you_mean
from depthray.models.layers import symbolic_size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ID_BITS = 10  # NYU Depth v2 has 894 classes
UNKNOWN = 2**ID_BITS - 1  # stands for ids below 0; all ids below this one keep a code of their own
FOCAL_LENGTH = 200.0  # pixels of a network's input; those of indoor sets at its sizes are 100 to 500
# Channels of an input: of sparse depth the filled map and where it was measured, of classes their binary digits, of a
# camera the directions of its rays and its focal length.
CHANNELS = {"image": 3, "background": 3, "sparse": 2, "mask": 1, "semantics": ID_BITS, "instances": 1, "intrinsics": 3}


def input_channels(inputs: tuple[str, ...]) -> int:
    """How many channels the inputs have together."""
    for key in inputs:
        if key not in CHANNELS:
            raise UsageError(f"data.inputs: no model takes '{key}'{did_you_mean(key, CHANNELS)}")
    return sum(CHANNELS[key] for key in inputs)


def image_slice(inputs: tuple[str, ...]) -> slice | None:
    """Which channels are the RGB image; None without one."""
    if "image" not in inputs:
        return None
    start = input_channels(inputs[: inputs.index("image")])
    return slice(start, start + CHANNELS["image"])


class InputStack(nn.Module):
    """Normalise and stack the inputs of a batch. Holds no weights."""

    num_classes: int  # class ids are below it; set only with semantics among the inputs
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        inputs: tuple[str, ...],
        *,
        max_depth: float,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        input_channels(inputs)
        self.inputs = inputs
        self.max_depth = max_depth
        if "semantics" in inputs:
            self.num_classes = UNKNOWN
        self.widths = {key: CHANNELS[key] for key in inputs}  # channels by input, in the order of the stack
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """inputs of a batch -> (B,C,H,W) of about unit size."""
        values: Any = batch
        height, width = next(values[key] for key in self.inputs if key != "intrinsics").shape[-2:]
        channels = [self._channels(key, values[key], (height, width)) for key in self.inputs]
        return channels[0] if len(channels) == 1 else torch.cat(channels, dim=1)

    def _channels(self, key: str, values: Tensor, size: tuple[int, int]) -> Tensor:
        """(B,c,H,W) values of a batch key, a camera (B,3,3) -> (B,C,H,W) with C = CHANNELS[key]"""
        if key == "intrinsics":
            return ray_channels(values, size)
        if key in COLOURS:
            return (values - self.mean) / self.std
        if key == "sparse":
            return torch.cat([fill_sparse(values) / self.max_depth, (values > 0).to(values.dtype)], dim=1)  # (B,2,H,W)
        if key == "semantics":
            return _bits(values)
        return _borders(values) if key == "instances" else values


def ray_channels(matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,3,3) in pixels of an image (H,W) -> (B,3,H,W): X / Z and Y / Z of each pixel's ray, and 2 ln(f / 200 px).

    f is sqrt(fx fy). From its picture alone a network cannot tell a long lens from a near wall; CAM-Convs (Facil et al.
    2019, arXiv:1904.02028) gives convolutions such maps beside their features, this the first of them.
    """
    height, width = size
    matrix = matrix.float()
    fx, fy, cx, cy = (matrix[:, row, column, None, None] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
    columns = torch.arange(width, device=matrix.device, dtype=torch.float32)
    rows = torch.arange(height, device=matrix.device, dtype=torch.float32)[:, None]
    maps = (columns - cx) / fx, (rows - cy) / fy, torch.log(fx * fy / FOCAL_LENGTH**2)
    return torch.stack([each.expand(-1, height, width) for each in maps], dim=1)


def centred_cameras(focal: Tensor, size: tuple[int, int]) -> Tensor:
    """(B) focal lengths in pixels -> (B,3,3) of images (H,W) that look straight ahead"""
    matrix = torch.eye(3, device=focal.device).repeat(len(focal), 1, 1)
    matrix[:, 0, 0], matrix[:, 1, 1] = focal, focal
    matrix[:, 0, 2], matrix[:, 1, 2] = (size[1] - 1) / 2, (size[0] - 1) / 2
    return matrix


def fill_sparse(sparse: Tensor, *, pixels: int = 1) -> Tensor:
    """(B,1,H,W) metres, 0 where not sampled -> (B,1,H,W) metres everywhere; 0 for an image without samples.

    Samples are averaged over blocks of 2, 4, 8 ... pixels until all blocks have one; from there back to the full size
    each pixel that has no sample takes the coarser map's value, bilinearly. A pixel of the map is `pixels` of the image
    on a side; only a traced graph asks, whose largest map follows from the largest image.
    """
    if torch.compiler.is_exporting():
        return symbolic_size.fill_sparse(sparse, pixels=pixels)
    maps = [sparse]  # (B,1,H,W), (B,1,H/2,W/2) ... (B,1,1,1)
    while max(maps[-1].shape[-2:]) > 1:
        known = (maps[-1] > 0).to(sparse.dtype)
        total, count = (F.avg_pool2d(values, 2, ceil_mode=True) for values in (maps[-1], known))
        maps.append(torch.where(count > 0, total / count.clamp(min=0.25), 0.0))
    full = maps.pop()
    for level in reversed(maps):
        size = (level.shape[-2], level.shape[-1])
        full = torch.where(level > 0, level, F.interpolate(full, size=size, mode="bilinear", align_corners=False))
    return full


def guide(batch: Batch, inputs: tuple[str, ...]) -> Tensor | None:
    """inputs of a batch -> (B,1,H,W) metres that the prediction may start from; None without sparse depth among them"""
    return fill_sparse(batch["sparse"]) if "sparse" in inputs else None


def _bits(ids: Tensor) -> Tensor:
    """(B,1,H,W) ids -> (B,10,H,W) binary digits as -1 and 1; as intensities, neighbouring ids would look alike."""
    # Powers of two by which to mask, not shifts by 0 to 9, which ONNX lacks for signed numbers.
    digits = 2 ** torch.arange(ID_BITS, device=ids.device).view(1, ID_BITS, 1, 1)  # against (B,1,H,W): (B,10,H,W)
    return (torch.where(ids < 0, UNKNOWN, ids) & digits > 0).float() * 2 - 1


def _borders(ids: Tensor) -> Tensor:
    """(B,1,H,W) ids -> (B,1,H,W) 1 where the right or lower neighbour is another instance: ids are arbitrary."""
    border = torch.zeros(ids.shape, device=ids.device)
    border[..., :-1] += ids[..., :-1] != ids[..., 1:]
    border[..., :-1, :] += ids[..., :-1, :] != ids[..., 1:, :]
    return border.clamp_(max=1)
