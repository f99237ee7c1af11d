"""Depth as files: 16-bit PNG in millimetres, float32 .npy, colour map, coloured point cloud.

There is no 8-bit depth here: 256 steps over a room are 4 cm each, and no reader could tell the unit.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.imaging import sheets
from depthray.imaging.camera import Camera

LIKELY = 0.5  # probability from which on a pixel has a depth
_FARTHEST = 65.535  # metres, the most that 16 bits of millimetres hold


def millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(H,W) metres -> (H,W) uint16 millimetres; 0 where not finite or not positive, at most 65.535 m."""
    measured = np.where(sheets.is_measured(depth), np.minimum(depth, _FARTHEST), 0)
    # float64: at 60 m a step of float32 is 4 micrometres, enough to round some half millimetres the other way. OpenCV
    # rounds halves to even, as NumPy does, in a fifth of the time.
    stored = cv2.multiply(measured.astype(np.float64), 1000.0, dtype=cv2.CV_16U)  # type: ignore[call-overload]  # takes numbers
    return np.asarray(stored, np.uint16)


def confident(depth: NDArray[np.float32], confidence: NDArray[np.float32] | None, least: float) -> NDArray[np.float32]:
    """(H,W) metres and confidence in [0,1] -> (H,W) metres, 0 where it is below `least`; as it is without confidence"""
    if confidence is None or least <= 0:
        return depth
    return np.where(confidence >= least, depth, np.float32(0))


def valid_only(depth: NDArray[np.float32], valid: NDArray[Any] | None) -> NDArray[np.float32]:
    """(H,W) metres and the probability that there is a depth, or bool -> (H,W) metres, 0 where there is likely none"""
    if valid is None:
        return depth
    return np.where(valid if valid.dtype == bool else valid >= LIKELY, depth, np.float32(0))


def encode_confidence_png(confidence: NDArray[np.float32]) -> bytes:
    """(H,W) in [0,1] -> the bytes of an 8-bit grey PNG, 255 = 1."""
    _, data = cv2.imencode(".png", _bytes(confidence))
    return data.tobytes()


def write_confidence_png(path: str | os.PathLike[str], confidence: NDArray[np.float32]) -> Path:
    """(H,W) in [0,1] -> an 8-bit grey PNG, 255 = 1."""
    return _write_bytes(path, encode_confidence_png(confidence))


def write_npz(path: str | os.PathLike[str], maps: Mapping[str, NDArray[np.float32]]) -> Path:
    """(H,W) maps by name -> a NumPy archive of float32, uncompressed: depth hardly shrinks."""
    path = Path(path)
    with path.open("wb") as file:
        arrays: dict[str, Any] = {name: np.asarray(values, np.float32) for name, values in maps.items()}
        np.savez(file, allow_pickle=False, **arrays)
    return path


def write_depth_png(path: str | os.PathLike[str], depth: NDArray[np.float32]) -> Path:
    """(H,W) metres -> a 16-bit grey PNG in millimetres, 0 = invalid."""
    return _write_bytes(path, encode_depth_png(depth))


def encode_depth_png(depth: NDArray[np.float32]) -> bytes:
    """(H,W) metres -> the bytes of the file `write_depth_png` writes."""
    # By OpenCV, since torchvision's encoder refuses 16 bits.
    _, data = cv2.imencode(".png", millimetres(depth))
    return data.tobytes()


def write_depth_npy(path: str | os.PathLike[str], depth: NDArray[np.float32]) -> Path:
    """(H,W) metres -> a NumPy file of float32 metres."""
    path = Path(path)
    with path.open("wb") as file:
        # Into an open file: given a path, NumPy would append .npy to other names.
        np.save(file, np.asarray(depth, np.float32), allow_pickle=False)
    return path


def write_colour_png(
    path: str | os.PathLike[str],
    depth: NDArray[np.float32],
    *,
    scale: sheets.ColourScale | None = None,
    unit: str = " m",
) -> Path:
    """(H,W) metres -> a PNG to look at, in colours of the scale and with its bar; by default from its own ends."""
    scale = scale or sheets.depth_scale([depth])
    coloured = sheets.colour_depth(depth, near=scale.near, far=scale.far)
    return sheets.save_png(path, sheets.add_scale(coloured, scale, unit=unit))


_POINT = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def points(depth: NDArray[np.float32], rgb: NDArray[np.uint8], *, camera: Camera) -> NDArray[np.void]:
    """(H,W) metres and (H,W,3) colours -> (N,) records xyz, rgb in the camera's frame: x right, y down, z forward."""
    measured, (x, y) = _seen(depth, camera)
    z = depth[measured]
    cloud = np.empty(z.size, _POINT)
    cloud["xyz"] = np.stack([x * z, y * z, z], axis=1)
    cloud["rgb"] = rgb[measured]
    return cloud


def _seen(depth: NDArray[np.float32], camera: Camera) -> tuple[NDArray[np.bool_], tuple[NDArray[Any], NDArray[Any]]]:
    """(H,W) metres -> (H,W) pixels that have a point, and (N,) right and down of a metre ahead in each of them"""
    measured = sheets.is_measured(depth)
    v, u = np.nonzero(measured)  # row and column of each point
    x, y = camera.rays(u, v)
    seen = np.isfinite(x) & np.isfinite(y)  # at the rim of a fisheye image nothing is
    if seen.all():
        return measured, (x, y)
    measured[v[~seen], u[~seen]] = False
    return measured, (x[seen], y[seen])


def write_ply(
    path: str | os.PathLike[str], depth: NDArray[np.float32], rgb: NDArray[np.uint8], *, camera: Camera, note: str = ""
) -> Path:
    """(H,W) metres and (H,W,3) colours -> a binary PLY file of one coloured point a pixel, in metres."""
    return _write_bytes(path, encode_ply(depth, rgb, camera=camera, note=note))


def encode_ply(depth: NDArray[np.float32], rgb: NDArray[np.uint8], *, camera: Camera, note: str = "") -> bytes:
    """(H,W) metres and (H,W,3) colours -> the bytes of the file `write_ply` writes."""
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
    return "\n".join(header).encode("ascii") + cloud.tobytes()


def write_glb(
    path: str | os.PathLike[str],
    depth: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    *,
    camera: Camera,
    note: str = "",
    confidence: NDArray[np.float32] | None = None,
) -> Path:
    """(H,W) metres and (H,W,3) colours -> a binary glTF 2.0 file of points in metres, x right, y up, z backward.

    With confidence (H,W) in [0,1] it is the opacity of the points.
    """
    return _write_bytes(path, encode_glb(depth, rgb, camera=camera, note=note, confidence=confidence))


def encode_glb(
    depth: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    *,
    camera: Camera,
    note: str = "",
    confidence: NDArray[np.float32] | None = None,
) -> bytes:
    """(H,W) metres and (H,W,3) colours -> the bytes of the file `write_glb` writes."""
    cloud = points(depth, rgb, camera=camera)
    # glTF looks along -z with y up; cameras of the field look along +z with y down.
    positions = (cloud["xyz"] * np.array([1, -1, -1], np.float32)).astype("<f4")
    opacity = np.full(cloud.size, 255, np.uint8) if confidence is None else _bytes(confidence[_seen(depth, camera)[0]])
    colours = np.concatenate([cloud["rgb"], opacity[:, None]], axis=1)  # 4 bytes keep alignment
    blended: dict[str, Any] = {} if confidence is None else {"materials": [{"alphaMode": "BLEND"}]}
    ends = (positions.min(axis=0).tolist(), positions.max(axis=0).tolist()) if cloud.size else ([0.0] * 3, [0.0] * 3)
    tree = {
        "asset": {"version": "2.0", "generator": "depthray", "extras": {"note": note, "camera": camera._asdict()}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        # glTF's numbers: mode 0 is points, 5126 float32, 5121 uint8, 34962 a buffer of vertices.
        "meshes": [
            {
                "primitives": [
                    {"mode": 0, "attributes": {"POSITION": 0, "COLOR_0": 1}, **({"material": 0} if blended else {})}
                ]
            }
        ],
        **blended,
        "accessors": [
            {
                **{"bufferView": 0, "componentType": 5126, "count": cloud.size, "type": "VEC3"},
                **{"min": ends[0], "max": ends[1]},  # the format demands both of positions
            },
            {"bufferView": 1, "componentType": 5121, "normalized": True, "count": cloud.size, "type": "VEC4"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": positions.nbytes, "target": 34962},
            {"buffer": 0, "byteOffset": positions.nbytes, "byteLength": colours.nbytes, "target": 34962},
        ],
        "buffers": [{"byteLength": positions.nbytes + colours.nbytes}],
    }
    return _pack_glb(tree, positions.tobytes() + colours.tobytes())


def _bytes(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(...) in [0,1], clamped -> (...) uint8, 255 = 1"""
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _pack_glb(tree: dict[str, Any], data: bytes) -> bytes:
    """JSON tree and buffer -> a binary glTF file of two chunks, each a multiple of 4 bytes as the format demands."""
    text = json.dumps(tree, separators=(",", ":")).encode()
    # JSON is padded with spaces; positions and colours are multiples of 4 bytes already.
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    path = Path(path)
    path.write_bytes(data)
    return path
