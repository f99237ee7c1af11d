"""What a second viewpoint sees of a depth map: a sensor next to the camera has shadows where the camera has none.

The second viewpoint is `baseline` metres to the right of the camera and looks the same way: a point (u, v, Z) of the
camera is at (u - fx baseline / Z, v, Z) there. Only the camera's depth is known. What it does not see, and the other
does, is taken for the continuation of what is behind.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Metres
from depthray.imaging.camera import Camera

STEP = 0.05  # of the depth: a smaller difference is the slope of one surface, not one surface behind another


class Beyond(NamedTuple):
    """Where pixels of one view are in the other: (N) rows and columns, not rounded, and metres."""

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    metres: NDArray[np.float64]


def sees(depth: Metres, camera: Camera, *, baseline: float) -> NDArray[np.bool_]:
    """(H,W) metres -> (H,W) whether a point of the camera is seen from the other viewpoint too"""
    if baseline == 0:
        return depth > 0
    nearest = cv2.erode(_nearest(depth, camera, baseline=baseline), np.ones((1, 3), np.uint8))  # closes cracks
    rows, columns, metres = _moved(depth, camera, baseline=baseline)
    inside = (columns >= 0) & (columns < depth.shape[1])
    seen = np.zeros(depth.shape, bool)
    front = nearest[rows, columns.clip(0, depth.shape[1] - 1)]
    # Divided: beyond the edge of the map erosion puts the largest number there is.
    seen[depth > 0] = inside & (metres / (1 + STEP) <= front)
    return seen


def view(depth: Metres, camera: Camera, *, baseline: float) -> Metres:
    """(H,W) metres of the camera -> (H,W) metres of the other viewpoint, 0 where nothing is known.

    What only that one sees continues what is behind.
    """
    if baseline == 0:
        return depth
    seen = _nearest(depth, camera, baseline=baseline)
    seen[~np.isfinite(seen)] = 0
    return _continue_behind(seen)


def back(rows: NDArray[np.intp], columns: NDArray[np.intp], seen: Metres, camera: Camera, *, baseline: float) -> Beyond:
    """(N) pixels of the other view and its (H,W) metres -> where they are in the camera's"""
    metres = seen[rows, columns].astype(float)
    return Beyond(rows.astype(float), columns + camera.fx * baseline / np.maximum(metres, 1e-6), metres)


def _nearest(depth: Metres, camera: Camera, *, baseline: float) -> Metres:
    """(H,W) metres -> (H,W) the nearest point of each pixel of the other view, infinity where none is"""
    rows, columns, metres = _moved(depth, camera, baseline=baseline)
    inside = (columns >= 0) & (columns < depth.shape[1])
    nearest = np.full(depth.shape, np.inf, np.float32)
    np.minimum.at(nearest, (rows[inside], columns[inside]), metres[inside])
    return nearest


def _moved(depth: Metres, camera: Camera, *, baseline: float) -> tuple[NDArray[np.intp], NDArray[np.intp], Metres]:
    """(H,W) metres -> (N) rows, columns in the other view and metres of the N measured pixels"""
    rows, columns = np.nonzero(depth > 0)
    metres = depth[rows, columns]
    return rows, np.rint(columns - camera.fx * baseline / metres).astype(np.intp), metres


def _continue_behind(seen: Metres) -> Metres:
    """(H,W) metres, 0 where unknown -> each gap of a row filled with the farther of its two ends"""
    known = seen > 0
    places = np.arange(seen.shape[1])
    before = np.maximum.accumulate(np.where(known, places, -1), axis=1)  # the last known pixel to the left
    after = np.minimum.accumulate(np.where(known, places, seen.shape[1])[:, ::-1], axis=1)[:, ::-1]
    rows = np.arange(len(seen))[:, None]
    padded = np.pad(seen, ((0, 0), (1, 1)))  # 0 to the left of the first and to the right of the last
    ends = np.maximum(padded[rows, before + 1], padded[rows, after + 1])
    return np.where(known, seen, ends)
