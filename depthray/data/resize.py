"""Changing the size of a sample: colour is averaged or interpolated, maps are looked up, the camera is scaled along."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS, MAPS, Sample
from depthray.config.sections import Data
from depthray.data.cameras.canonical_camera import canonical_size

MULTIPLE = 14  # with data.fit=aspect both sides are multiples of it: the side of a transformer's patch in pixels


def resize_for_inference(sample: Sample, data: Data) -> Sample:
    """Sample (H,W) -> (h,w) of the size that a network gets outside of training, by data.fit."""
    if data.fit == "native" and not data.resizes_to_focal:
        return sample
    height, width = sample["image"].shape[:2]
    size = size_for_inference((height, width), data, camera=sample.get("intrinsics"), name=sample.get("id", ""))
    return resize(sample, size, bicubic=data.fit == "aspect")


def size_for_inference(
    size: tuple[int, int], data: Data, *, camera: NDArray[Any] | None = None, name: str = ""
) -> tuple[int, int]:
    """Height, width of a frame -> those that a network gets it with outside of training, by data.fit.

    With data.canonical=image that depends on its camera (3,3); a frame without one stays as it is.
    """
    if data.resizes_to_focal and camera is not None:
        return canonical_size(size, camera, data, name=name)
    if data.fit == "aspect":
        return aspect_size(*size, shorter=min(data.size))
    return size if data.fit == "native" else data.size


def aspect_size(height: int, width: int, *, shorter: int) -> tuple[int, int]:
    """height, width in pixels -> height, width of the same aspect, multiples of 14, no side below `shorter`."""
    scale = shorter / min(height, width)
    least = math.ceil(shorter / MULTIPLE)
    rows, columns = (max(round(side * scale / MULTIPLE), least) * MULTIPLE for side in (height, width))
    return rows, columns


def resize(sample: Sample, size: tuple[int, int], *, bicubic: bool = False) -> Sample:
    """Sample (H,W) -> sample of size (h,w) pixels; depth and ids are values of the original, never averages.

    Colour stays uint8 of 0 to 255; `bicubic` makes it float32, which overshoots that range a little at edges.
    """
    resized: dict[str, Any] = dict(sample)
    for key in COLOURS:
        if key in resized:
            resized[key] = (resize_bicubic if bicubic else resize_colour)(resized[key], size)
    for key in MAPS:
        if key in resized:
            resized[key] = (resize_sparse if key == "sparse" else resize_nearest)(resized[key], size)
    if "intrinsics" in resized:
        resized["intrinsics"] = scale_camera(sample["intrinsics"], old=sample["image"].shape[:2], new=size)
    return resized  # type: ignore[return-value]


def resize_colour(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H,W,3) uint8 -> (h,w,3) uint8: pixel areas averaged when shrinking, bilinear otherwise."""
    if image.shape[:2] == size:
        return image
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=method)  # type: ignore[return-value]


def resize_bicubic(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """(H,W,3) uint8 -> (h,w,3) float32 on the same scale, bicubic, neither rounded nor clamped."""
    return cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def resize_nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """(H,W) any dtype -> (h,w) of the same dtype, each pixel the original one nearest to its centre."""
    if values.shape == size:
        return values
    # NEAREST_EXACT looks up pixel centres; plain NEAREST looks up corners and shifts maps against the image.
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def resize_sparse(sparse: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(H,W) metres, mostly 0 -> (h,w) metres, each sample in the pixel that it falls into; of several the nearest.

    Looked up pixel by pixel, most of a few hundred samples would be missed when shrinking.
    """
    if sparse.shape == size:
        return sparse
    rows, columns = np.nonzero(sparse)
    metres = sparse[rows, columns]
    pixels = tuple(
        ((position + 0.5) * new / old).astype(np.intp)
        for position, new, old in zip((rows, columns), size, sparse.shape, strict=True)
    )
    resized = np.full(size, np.inf, np.float32)
    np.minimum.at(resized, pixels, metres)
    resized[np.isinf(resized)] = 0
    return resized


def scale_camera(intrinsics: NDArray[np.float32], *, old: tuple[int, ...], new: tuple[int, ...]) -> NDArray[np.float32]:
    """(3,3) in pixels of the old (H,W) -> (3,3) in pixels of the new; pixel centres are at whole numbers."""
    y, x = new[0] / old[0], new[1] / old[1]
    # The half pixel: the left edge of an image is at -0.5, and edges coincide, not pixel centres.
    move = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return (move @ intrinsics).astype(np.float32)
