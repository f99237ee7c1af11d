"""A pinhole camera in pixels, and where a pixel with a depth is in space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.errors import UsageError


class Camera(NamedTuple):
    """A pinhole camera in pixels; pixel centres are at whole numbers."""

    fx: float
    fy: float
    cx: float
    cy: float

    def matrix(self) -> NDArray[np.float32]:
        """-> (3,3)"""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float32)

    def rays(self, u: NDArray[Any], v: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) columns and rows -> (N,) metres to the right and down of a metre ahead"""
        return (
            np.asarray((u - self.cx) / self.fx, np.float64),
            np.asarray((v - self.cy) / self.fy, np.float64),
        )

    def scaled(self, down: float, across: float) -> Camera:
        """The camera of the image with so many times its rows and columns."""
        # Pixel centres have whole coordinates, hence the half pixel around the scaling of the principal point.
        return Camera(self.fx * across, self.fy * down, (self.cx + 0.5) * across - 0.5, (self.cy + 0.5) * down - 0.5)


def assumed_camera(height: int, width: int, *, degrees: float = 60.0) -> Camera:
    """The camera of an image of unknown origin: square pixels, centred, `degrees` from left to right."""
    # NYU's Kinect, for comparison, sees 63 degrees from left to right.
    focal = width / 2 / np.tan(np.radians(degrees) / 2)
    # Pixel centres are at whole numbers, so the middle of the image is at (width - 1) / 2.
    return Camera(float(focal), float(focal), (width - 1) / 2, (height - 1) / 2)


def read_camera(text: str) -> Camera:
    """The flag --intrinsics, `fx,fy,cx,cy` in pixels -> the camera; a UsageError for anything else."""
    try:
        camera = Camera(*(float(part) for part in text.split(",")))
    except (TypeError, ValueError):
        raise UsageError(f"--intrinsics={text}: give four numbers fx,fy,cx,cy in pixels") from None
    if not all(math.isfinite(number) for number in camera) or min(camera.fx, camera.fy) <= 0:
        raise UsageError(f"--intrinsics={text}: fx and fy must be positive, and all four finite")
    return camera


def as_camera(given: Camera | Sequence[float] | NDArray[Any]) -> Camera:
    """A camera, a matrix (3,3), or fx, fy, cx, cy in pixels -> the camera; a UsageError for anything else."""
    if type(given) is not Camera and isinstance(given, Camera):  # one with a lens, which its numbers do not tell
        return given
    try:
        numbers = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.shape == (3, 3) and numbers[0, 1] == 0 and numbers[2].tolist() == [0, 0, 1]:
        numbers = numbers[[0, 1, 0, 1], [0, 1, 2, 2]]
    if numbers.shape != (4,) or not np.isfinite(numbers).all() or min(numbers[:2]) <= 0:
        raise UsageError("a camera is fx, fy, cx, cy in pixels, or a matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
    return Camera(*numbers.tolist())


def describe_misfit(cx: float, cy: float, *, height: int, width: int) -> str:
    """What shows that a camera is not that of an image of this size, such as one resized afterwards; "" for nothing."""
    if 0 <= cx < width and 0 <= cy < height:
        return ""
    return (
        f"the principal point ({cx:g}, {cy:g}) is outside of the {width}x{height} image: is the camera that of another "
        "size?"
    )


def unproject(u: float, v: float, metres: float, *, camera: Camera) -> NDArray[np.float64]:
    """A pixel (column, row) and its depth in metres -> (3,) metres in the camera's frame: x right, y down, z forward"""
    (right,), (down,) = camera.rays(np.array([u]), np.array([v]))
    return np.array([right * metres, down * metres, metres], np.float64)
