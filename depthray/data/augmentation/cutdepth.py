"""CutDepth (Ishii and Yamashita 2021, arXiv 2107.07684): depth pasted into a rectangle of the image, in grey.

The network sees part of the answer, and with it edges of depth that colour does not show. With random numbers a, b,
c, d in [0,1) the rectangle of an image of W x H pixels begins at column a W and row b H, is max((W - a W) c p, 1)
pixels wide and max((H - b H) d p, 1) high. White is the largest depth that counts; unmeasured pixels are black.

p = 0.75 is that of GLPN (Kim et al. 2022, arXiv 2201.07436), whose vertical variant is another one: its rectangle is as
high as the image, in every fourth image, and has millimetres modulo 256 for grey (dataset/base_dataset.py of
github.com/vinvino02/GLPDepth).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from depthray.batch import Batch, Sample, to_metres
from depthray.config.sections import Augment
from depthray.data.augmentation.geometry import Size

LARGEST = 0.75  # p: the largest share of what is right of and below its corner
WHITE = 255.0


class Cut(NamedTuple):
    """A rectangle of a picture, in pixels, that shows depth."""

    top: int
    left: int
    bottom: int  # the row below it
    right: int  # the column beyond it
    measured: tuple[float, float]  # limits in metres within which depth counts; the second is white


def draw(section: Augment, generator: np.random.Generator, *, size: Size, measured: tuple[float, float]) -> Cut | None:
    """The rectangle that is drawn in a picture (h,w), None where there is none."""
    coin, across, down, wide, high = generator.random(5).tolist()
    if coin >= section.cutdepth:
        return None
    height, width = size
    top, left = int(down * height), int(across * width)
    rows = int(max((height - down * height) * high * LARGEST, 1))
    columns = int(max((width - across * width) * wide * LARGEST, 1))
    return Cut(top, left, top + rows, left + columns, measured)


def paste(sample: Sample, cut: Cut) -> Sample:
    """Sample (H,W) -> the same with an image that shows its depth in the rectangle; as it is where it has no depth."""
    if "depth" not in sample:
        return sample
    rectangle = np.s_[cut.top : cut.bottom, cut.left : cut.right]
    depth = torch.from_numpy(sample["depth"][rectangle].astype(np.float32))[None, None]
    if "depth_scale" in sample:
        depth = to_metres(depth, torch.from_numpy(sample["depth_scale"])[None], cut.measured)
    image = sample["image"].copy()
    image[rectangle] = _shade(depth, cut.measured[1])[0, 0, :, :, None].numpy().astype(np.uint8)
    return {**sample, "image": image}


def stack(cuts: Sequence[Cut | None]) -> Tensor | None:
    """-> (B,6) rectangles and limits of B samples, None where no sample has one"""
    if not any(cuts):
        return None
    empty = Cut(0, 0, 0, 0, (0.0, 1.0))
    return torch.tensor([(*cut[:4], *cut.measured) for cut in (each or empty for each in cuts)], dtype=torch.float32)


def paste_batch(batch: Batch, cuts: Tensor) -> Batch:
    """Batch (B,C,h,w) changed but for this, colour of 0 to 255 -> the same, as `paste` makes it of each sample."""
    if "depth" not in batch:
        return batch
    top, left, bottom, right, least, most = cuts[:, :, None, None, None].unbind(1)  # (B,1,1,1) each
    depth = batch["depth"].float()
    if "depth_scale" in batch:
        depth = to_metres(depth, batch["depth_scale"], (least, most))
    rows = torch.arange(depth.shape[2], device=depth.device)[:, None]
    columns = torch.arange(depth.shape[3], device=depth.device)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return {**batch, "image": torch.where(inside, _shade(depth, most), batch["image"])}


def _shade(depth: Tensor, most: float | Tensor) -> Tensor:
    """(B,1,h,w) metres -> (B,1,h,w) whole values of 0 to 255"""
    return (WHITE * (depth / most).clamp(0, 1)).round()
