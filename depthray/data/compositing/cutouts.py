"""Objects cut out of pictures: read, cropped to what is seen of them, and no larger in memory than they are shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError
from depthray.imaging import photos

SEEN = 128  # of 255: a pixel that an object covers by half or more is of it


class Cutout(NamedTuple):
    """An object, of colours that are multiplied by its cover: what is transparent has none to bleed in."""

    colour: NDArray[np.float32]  # (h,w,3) RGB of 0 to 255, times cover
    cover: NDArray[np.float32]  # (h,w) from 0 to 1

    def resized(self, size: tuple[int, int], *, flip: bool = False) -> Cutout:
        """The object at another size (h,w), mirrored if wanted."""
        parts = []
        for values in self:
            shrinks = size[0] <= values.shape[0] and size[1] <= values.shape[1]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            resized = values if values.shape[:2] == size else cv2.resize(values, size[::-1], interpolation=method)
            parts.append(np.ascontiguousarray(resized[:, ::-1] if flip else resized, np.float32))
        return Cutout(parts[0], parts[1])


def read_cutout(path: Path, *, mask: Path | None = None, largest: int) -> Cutout:
    """A picture with alpha, or with a mask of its size, -> the object, no side above `largest` pixels.

    Raises DataError where nothing is cut out, or nothing is left.
    """
    rgba = photos.read_alpha(path) if mask is None else _with_mask(path, mask)
    where = path if mask is None else mask
    alpha = rgba[..., 3]
    if not (alpha >= SEEN).any():
        raise DataError(f"{where}: nothing of the object is seen; every pixel is transparent or 0")
    if (alpha == 255).all():
        raise DataError(f"{where}: nothing is cut out; every pixel is opaque or white")
    rows, columns = (np.flatnonzero((alpha >= SEEN).any(axis=axis)) for axis in (1, 0))
    seen = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    cover = seen[..., 3] / np.float32(255)
    cutout = Cutout(seen[..., :3] * cover[..., None], cover)
    share = largest / max(cover.shape)
    height, width = (max(1, math.floor(side * share)) for side in cover.shape)
    return cutout if share >= 1 else cutout.resized((height, width))


def _with_mask(path: Path, mask: Path) -> NDArray[np.uint8]:
    """A picture and its mask -> (H,W,4) uint8 RGBA."""
    picture, cover = photos.read(path), photos.read(mask).max(axis=2)
    if picture.shape[:2] != cover.shape:
        (height, width), (rows, columns) = picture.shape[:2], cover.shape
        raise DataError(f"{mask}: is {columns}x{rows} pixels, and its picture {width}x{height}; give masks of its size")
    values = np.unique(cover)
    if len(values) == 2 and values[0] == 0:  # 0 and 1, as masks of class ids have it, or 0 and 255
        cover = np.where(cover > 0, 255, 0).astype(np.uint8)
    return np.dstack([picture, cover]).astype(np.uint8)
