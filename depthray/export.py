"""Depth as files: 16-bit PNG in millimetres, float32 .npy, colour map, coloured point cloud.

There is no 8-bit depth here: 256 steps over a room are 4 cm each, and no reader could tell the unit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray import picture

_FARTHEST = 65_535


class Camera(NamedTuple):
    """A pinhole camera in pixels; pixel centres lie at whole numbers."""

    fx: float
    fy: float
    cx: float
    cy: float


def assumed_camera(height: int, width: int, *, degrees: float = 60.0) -> Camera:
    """The camera of an image of unknown origin: square pixels, centred, so many degrees from left to right."""
    focal = width / 2 / np.tan(np.radians(degrees) / 2)
    return Camera(float(focal), float(focal), (width - 1) / 2, (height - 1) / 2)


def millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(H,W) metres -> (H,W) uint16 millimetres; 0 where not finite or not positive, at most 65.535 m."""
    known = np.isfinite(depth) & (depth > 0)
    scaled = np.where(known, depth, 0).astype(np.float64) * 1000
    return np.clip(np.rint(scaled), 0, _FARTHEST).astype(np.uint16)


def depth_png(path: str | os.PathLike[str], depth: NDArray[np.float32]) -> Path:
    """(H,W) metres -> a 16-bit grey PNG in millimetres, 0 = invalid."""
    _, data = cv2.imencode(".png", millimetres(depth))
    return _write(path, data.tobytes())


def depth_npy(path: str | os.PathLike[str], depth: NDArray[np.float32]) -> Path:
    """(H,W) metres -> a NumPy file of float32 metres."""
    path = Path(path)
    with path.open("wb") as file:
        np.save(file, np.asarray(depth, np.float32), allow_pickle=False)
    return path


def colour_png(path: str | os.PathLike[str], depth: NDArray[np.float32]) -> Path:
    """(H,W) metres -> a PNG to look at, coloured from its own nearest to its own farthest depth."""
    near, far, _ = picture.scale([depth])
    return picture.save_png(path, picture.colour(depth, near=near, far=far))


_POINT = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def points(depth: NDArray[np.float32], rgb: NDArray[np.uint8], *, camera: Camera) -> NDArray[np.void]:
    """(H,W) metres and (H,W,3) colours -> (N,) records xyz, rgb in the camera's frame: x right, y down, z forward."""
    known = np.isfinite(depth) & (depth > 0)
    v, u = np.nonzero(known)
    z = depth[known]
    cloud = np.empty(z.size, _POINT)
    cloud["xyz"] = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=1)
    cloud["rgb"] = rgb[known]
    return cloud


def point_cloud(
    path: str | os.PathLike[str], depth: NDArray[np.float32], rgb: NDArray[np.uint8], *, camera: Camera, note: str = ""
) -> Path:
    """(H,W) metres and (H,W,3) colours -> a binary PLY file of one coloured point a pixel, in metres."""
    cloud = points(depth, rgb, camera=camera)
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres, camera frame: x right, y down, z forward",
        f"comment fx {camera.fx:.6g} fy {camera.fy:.6g} cx {camera.cx:.6g} cy {camera.cy:.6g}",
        *([f"comment {note}"] if note else []),
        f"element vertex {cloud.size}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "end_header\n",
    ]
    return _write(path, "\n".join(header).encode("ascii") + cloud.tobytes())


def _write(path: str | os.PathLike[str], data: bytes) -> Path:
    path = Path(path)
    path.write_bytes(data)
    return path
