"""Motion blur, tone and JPEG of a batch on its device, as camera_changes.py draws them and makes them on the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from depthray.data.augmentation.camera_changes import CameraChanges, motion_kernel
from depthray.data.augmentation.geometry import Size
from depthray.data.augmentation.movable import Movable, Some

BLOCK = 8  # pixels of a JPEG that are transformed together, each way
MIDDLE = 128.0  # of the values of a JPEG
# The tables of annex K of the JPEG standard, of luma and chroma, at the quality 50.
LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *[99] * 32,
)


@dataclass(frozen=True)
class CameraBatch(Movable):
    """The changes of camera of B samples, in the order in which they are made."""

    motions: Some | None  # (n,K,K) kernels
    tones: Some | None  # (n,4): exponent, gains of red, green and blue
    tables: Some | None  # (n,2,8,8): what coefficients of a JPEG's luma and chroma are rounded to

    @staticmethod
    def of(drawn: Sequence[CameraChanges], size: Size) -> CameraBatch:
        """What was drawn of each sample, of pictures (h,w)."""
        kernels = {i: motion_kernel(*each.motion, width=size[1]) for i, each in enumerate(drawn) if each.motion}
        widest = max((len(kernel) for kernel in kernels.values()), default=0)
        return CameraBatch(
            motions=Some.of({i: np.pad(kernel, (widest - len(kernel)) // 2) for i, kernel in kernels.items()}),
            tones=Some.of({i: (each.tone.exponent, *each.tone.gains) for i, each in enumerate(drawn) if each.tone}),
            tables=Some.of({i: _tables(each.quality) for i, each in enumerate(drawn) if each.quality is not None}),
        )

    def expose(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The (B,3,h,w) of image and background, 0 to 255 -> the same with motion blur, then tone."""
        changed = list(images)
        if self.motions is not None:
            changed = [self.motions.change(image, _blur) for image in changed]
        if self.tones is not None:
            changed = [self.tones.change(image, _tone) for image in changed]
        return changed

    def compress(self, images: Sequence[Tensor]) -> list[Tensor]:
        """The (B,3,h,w) of image and background, 0 to 255 -> the same as JPEGs show them."""
        return list(images) if self.tables is None else [self.tables.change(image, _jpeg) for image in images]


def _tables(quality: int) -> NDArray[np.int64]:
    """-> (2,8,8) of this quality, as libjpeg scales them"""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    at_50 = np.array([LUMA, CHROMA]).reshape(2, BLOCK, BLOCK)
    return ((at_50 * percent + 50) // 100).clip(1, 255)


def _blur(images: Tensor, kernels: Tensor) -> Tensor:
    """(n,3,h,w) and (n,K,K) -> (n,3,h,w)"""
    n, channels, height, width = images.shape
    reach = kernels.shape[1] // 2
    padded = _mirrored(_mirrored(images, reach, dim=2), reach, dim=3)
    together = padded.reshape(1, n * channels, height + 2 * reach, width + 2 * reach)
    weights = kernels.repeat_interleave(channels, dim=0)[:, None]
    return F.conv2d(together, weights, groups=n * channels).reshape(images.shape).round_()


def _mirrored(images: Tensor, reach: int, *, dim: int) -> Tensor:
    """The same with so many pixels more on both sides, as OpenCV's BORDER_REFLECT, which repeats those of the edge."""
    before, after = images.narrow(dim, 0, reach), images.narrow(dim, images.shape[dim] - reach, reach)
    return torch.cat([before.flip(dim), images, after.flip(dim)], dim=dim)


def _tone(images: Tensor, numbers: Tensor) -> Tensor:
    """(n,3,h,w) and (n,4) -> (n,3,h,w)"""
    exponents, gains = numbers[:, :1, None, None], numbers[:, 1:, None, None]
    return (255 * ((images.round() / 255) ** exponents * gains).clamp(0, 1)).round_()


def _jpeg(images: Tensor, tables: Tensor) -> Tensor:
    """(n,3,h,w) of 0 to 255 and (n,2,8,8) -> (n,3,h,w): in blocks of 8 pixels, colour at half the size"""
    height, width = images.shape[2:]
    whole = F.pad(images.round(), (0, -width % (2 * BLOCK), 0, -height % (2 * BLOCK)), mode="replicate")
    red, green, blue = (whole[:, channel : channel + 1] for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.cat([(blue - luma) / 1.772, (red - luma) / 1.402], dim=1)
    luma = _quantise(luma - MIDDLE, tables[:, :1]) + MIDDLE
    small = _quantise(F.avg_pool2d(chroma, 2), tables[:, 1:])
    blues, reds = F.interpolate(small, scale_factor=2, mode="bilinear").chunk(2, dim=1)
    greens = luma - (0.299 * 1.402 / 0.587) * reds - (0.114 * 1.772 / 0.587) * blues
    shown = torch.cat([luma + 1.402 * reds, greens, luma + 1.772 * blues], dim=1)
    return shown[:, :, :height, :width].round().clamp_(0, 255)


def _quantise(values: Tensor, tables: Tensor) -> Tensor:
    """(n,C,H,W) and (n,1,8,8) -> (n,C,H,W) with the cosine coefficients of each block rounded to its table's steps"""
    n, channels, height, width = values.shape
    cosines = _cosines(values.device)
    blocks = values.reshape(n, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    steps = tables[:, :, None, None]
    rounded = (cosines @ blocks @ cosines.T / steps).round_() * steps
    return (cosines.T @ rounded @ cosines).transpose(3, 4).reshape(values.shape)


def _cosines(device: torch.device) -> Tensor:
    """-> (8,8), orthonormal: the type-2 cosine transform of 8 values"""
    # Of no constants: a copy of one to a GPU would wait for it.
    order = torch.arange(BLOCK, dtype=torch.float32, device=device)
    waves = torch.cos((2 * order + 1) * order[:, None] * (math.pi / (2 * BLOCK))) * math.sqrt(2 / BLOCK)
    return torch.where(order[:, None] == 0, waves * math.sqrt(0.5), waves)
