"""What people have as images in Python: paths, bytes, images of Pillow, arrays, tensors -> (H,W,3) uint8 RGB."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from depthray.errors import DataError
from depthray.imaging import photos, pillow_formats

_KINDS = "a path, the bytes of a file, an image of Pillow, an array (H,W,3) or (H,W), or a tensor (3,H,W) or (1,H,W)"
_CHANNELS = (1, 3, 4)


def as_list(images: Any) -> list[Any] | None:
    """A list, a tuple, an array (B,H,W,3) or a tensor (B,3,H,W) -> its images; None for one image."""
    if isinstance(images, list | tuple):
        return list(images)
    is_batch = (isinstance(images, np.ndarray) or _is_tensor(images)) and images.ndim == 4
    return list(images) if is_batch else None


def as_rgb(image: Any, *, where: str = "image") -> NDArray[np.uint8]:
    """One image of any kind -> (H,W,3) uint8 RGB, upright.

    Arrays and tensors are RGB, RGBA or grey: uint8, uint16, or floating-point numbers in [0, 1]. Alpha is dropped, and
    16 bits become 8. Raises DataError for whatever else, with the number or shape that is wrong.
    """
    if isinstance(image, str | os.PathLike):
        return photos.read(image)
    if isinstance(image, bytes | bytearray):
        return photos.decode_any(bytes(image), where=where)
    if isinstance(image, Image):
        photos.check_size(*image.size, where=where, limits=photos.LIMITS)
        return pillow_formats.to_rgb(image, where=where)
    if _is_tensor(image):
        return _of_array(_channels_last(image.detach().cpu(), where=where), where=where)
    if isinstance(image, np.ndarray):
        return _of_array(image, where=where)
    raise DataError(f"{where}: an image is {_KINDS}; this is {type(image).__name__}")


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _channels_last(tensor: Any, *, where: str) -> NDArray[Any]:
    """A tensor (C,H,W) or (H,W) -> an array (H,W,C) or (H,W)."""
    if tensor.ndim == 3:
        if tensor.shape[0] not in _CHANNELS:
            hint = "; permute(2, 0, 1) puts the channels first" if tensor.shape[2] in _CHANNELS else ""
            shape = tuple(tensor.shape)
            raise DataError(f"{where}: a tensor is (3,H,W), (4,H,W) or (1,H,W), this one has the shape {shape}{hint}")
        tensor = tensor.permute(1, 2, 0)
    # NumPy has no bfloat16.
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _of_array(image: NDArray[Any], *, where: str) -> NDArray[np.uint8]:
    """(H,W), (H,W,1), (H,W,3) or (H,W,4) numbers -> (H,W,3) uint8 RGB."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in _CHANNELS or not image.size:
        first = image.ndim == 3 and image.shape[0] in _CHANNELS
        hint = "; transpose(1, 2, 0) puts the channels last" if first else ""
        raise DataError(f"{where}: an image is {_KINDS}; this is an array of the shape {image.shape}{hint}")
    eight = _eight_bits(image[..., :3], where=where)
    # A copy: whoever fills an array again, as cameras do, must not change the image of an earlier result.
    return np.array(np.broadcast_to(eight, (*eight.shape[:2], 3)), order="C")


def _eight_bits(values: NDArray[Any], *, where: str) -> NDArray[np.uint8]:
    """uint8, uint16 or floating-point numbers in [0, 1] of any shape -> uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return pillow_formats.reduce_bits(values)
    if values.dtype.kind != "f":
        raise DataError(f"{where}: an image is uint8, uint16 or floating-point, this one is {values.dtype}")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # False also for NaN
        raise DataError(
            f"{where}: floating-point images are in [0, 1], before any normalisation, and this one is from {low:g} to "
            f"{high:g}; divide by the largest value that it could have, or give uint8"
        )
    return np.rint(values.astype(np.float32) * 255).astype(np.uint8)
