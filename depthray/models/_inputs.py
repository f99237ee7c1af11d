"""From the keys of a batch to the planes an encoder's first convolution sees."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.batch import COLOURS, Batch
from depthray.errors import UsageError, did_you_mean

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ID_BITS = 10  # NYU Depth v2 has 894 classes
UNKNOWN = 2**ID_BITS - 1  # stands for ids below 0; all below this one stay apart

PLANES = {"image": 3, "background": 3, "sparse": 2, "mask": 1, "semantics": ID_BITS, "instances": 1}


def plane_count(inputs: tuple[str, ...]) -> int:
    """How many planes the inputs make together."""
    for key in inputs:
        if key not in PLANES:
            raise UsageError(f"data.inputs: no model takes '{key}'{did_you_mean(key, PLANES)}")
    return sum(PLANES[key] for key in inputs)


def image_slice(inputs: tuple[str, ...]) -> slice | None:
    """Which planes are the RGB image; None without one."""
    if "image" not in inputs:
        return None
    start = plane_count(inputs[: inputs.index("image")])
    return slice(start, start + PLANES["image"])


class Planes(nn.Module):
    """Normalise and stack the inputs of a batch. Holds no weights."""

    told_apart: int  # class ids below it; only with semantics among the inputs
    mean: Tensor
    std: Tensor

    def __init__(self, inputs: tuple[str, ...], *, max_depth: float) -> None:
        super().__init__()
        plane_count(inputs)
        self.inputs = inputs
        self.max_depth = max_depth
        if "semantics" in inputs:
            self.told_apart = UNKNOWN
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """inputs of a batch -> (B,C,H,W) planes of about unit size."""
        planes = [self._planes(key, batch[key]) for key in self.inputs]  # type: ignore[literal-required]
        return planes[0] if len(planes) == 1 else torch.cat(planes, dim=1)

    def _planes(self, key: str, values: Tensor) -> Tensor:
        """(B,c,H,W) values of a batch key -> (B,C,H,W) with C = PLANES[key]"""
        if key in COLOURS:
            return (values - self.mean) / self.std
        if key == "sparse":
            return torch.cat([filled(values) / self.max_depth, (values > 0).to(values.dtype)], dim=1)
        if key == "semantics":
            return _bits(values)
        return _borders(values) if key == "instances" else values


def filled(sparse: Tensor) -> Tensor:
    """(B,1,H,W) metres, 0 where not sampled -> (B,1,H,W) metres everywhere; 0 for an image without samples.

    Samples are averaged over blocks of 2, 4, 8 ... pixels until all blocks have one; from there back to the full size
    each pixel that has no sample takes the coarser map's value, bilinearly.
    """
    maps = [sparse]
    while max(maps[-1].shape[-2:]) > 1:
        known = (maps[-1] > 0).to(sparse.dtype)
        total, count = (F.avg_pool2d(values, 2, ceil_mode=True) for values in (maps[-1], known))
        maps.append(torch.where(count > 0, total / count.clamp(min=0.25), 0.0))
    whole = maps.pop()
    for level in reversed(maps):
        size = (level.shape[-2], level.shape[-1])
        whole = torch.where(level > 0, level, F.interpolate(whole, size=size, mode="bilinear", align_corners=False))
    return whole


def guide(batch: Batch, inputs: tuple[str, ...]) -> Tensor | None:
    """inputs of a batch -> (B,1,H,W) metres that the answer may start from; None without sparse depth among them"""
    return filled(batch["sparse"]) if "sparse" in inputs else None


def _bits(ids: Tensor) -> Tensor:
    """(B,1,H,W) ids -> (B,10,H,W) binary digits as -1 and 1; as intensities, neighbouring ids would look alike."""
    digits = torch.arange(ID_BITS, device=ids.device).view(1, ID_BITS, 1, 1)
    return ((torch.where(ids < 0, UNKNOWN, ids) >> digits) & 1).float() * 2 - 1


def _borders(ids: Tensor) -> Tensor:
    """(B,1,H,W) ids -> (B,1,H,W) 1 where the right or lower neighbour is another instance; an id alone says nothing."""
    border = torch.zeros(ids.shape, device=ids.device)
    border[..., :-1] += ids[..., :-1] != ids[..., 1:]
    border[..., :-1, :] += ids[..., :-1, :] != ids[..., 1:, :]
    return border.clamp_(max=1)
