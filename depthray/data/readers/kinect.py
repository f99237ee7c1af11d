"""The Kinect of NYU Depth V2: its two cameras, and depth registered from the infrared camera to the colour camera.

The numbers are the calibration published with the data set's own toolbox, for images of 640x480. Pixel centres are at
whole numbers.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.readers.files import pinhole
from depthray.data.readers.zbuffer import nearest_depths
from depthray.data.resize import scale_camera

NATIVE = (480, 640)  # height, width the calibration is for
RANGE = np.float32(10.0)  # metres at which the decoding of disparity stops: no measurement from there on


class KinectCamera(NamedTuple):
    """A pinhole camera with lens distortion, at 640x480."""

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, float, float, float, float]  # k1, k2, p1, p2, k3 in the order of OpenCV

    def matrix(self, size: tuple[int, ...]) -> NDArray[np.float32]:
        """(H,W) -> (3,3) float32 pinhole matrix of the full view at that size"""
        return scale_camera(pinhole(self.fx, self.fy, self.cx, self.cy), old=NATIVE, new=size)


COLOUR = KinectCamera(
    518.85790117450188,
    519.46961112127485,
    325.58244941119034,
    253.73616633400465,
    (0.20796615318809061, -0.58613825163911781, 7.2231363135888329e-04, 1.0479627195765181e-03, 0.49856986684705107),
)
INFRARED = KinectCamera(
    582.62448167737955,
    582.69103270988637,
    313.04475870804731,
    238.44389626620386,
    (-0.099897236553084481, 0.39065324602765344, 1.9290592870229277e-03, -1.9422022475975055e-03, -0.51031725053400578),
)
# The toolbox writes p' = -R^T p + t, with all of p' mirrored; without the mirror it is p' = R^T p - t.
TURN = np.array(
    [
        [9.9997798940829263e-01, -5.0359919480810989e-03, -4.3196624923060242e-03],
        [5.0518419386157446e-03, 9.9998051861143999e-01, 3.6662365748484798e-03],
        [4.3011152014118693e-03, -3.6879781309514218e-03, 9.9998394948385538e-01],
    ]
)
MOVE = -np.array([2.5031875059141302e-02, -2.9342312935846411e-04, 6.6238747008330102e-04])  # metres


def room_of(folder: str) -> str:
    """Name of a recording -> its room: 'cafe_0001b' is the second part of a recording of 'cafe_0001'.

    All parts have one scene and so are on one side of a split.
    """
    return re.sub(r"(?<=_\d{4})[a-z]$", "", folder)


def undistort(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H,W,3) uint8 as recorded -> (H,W,3) uint8 as `COLOUR` without its distortion would see it."""
    across, down = _undistortion(image.shape[:2])
    return np.asarray(cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8)


def register(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H,W) metres seen by `INFRARED` -> (H,W) metres seen by `COLOUR` without distortion; of several the nearest.

    Each measurement goes to the one pixel that it falls on; gaps between them stay unmeasured, not interpolated.
    """
    measured = (depth > 0) & (depth < RANGE)
    metres = depth[measured]
    # Rays and offset are already multiplied by the colour camera's matrix: column and row times distance, and distance.
    across, down, distance = (
        rays[measured] * metres + offset for rays, offset in zip(*_projection(depth.shape), strict=True)
    )
    ahead = distance > 0
    rows, columns = (np.rint(axis[ahead] / distance[ahead]).astype(np.int64) for axis in (down, across))
    return nearest_depths(rows, columns, distance[ahead], shape=depth.shape)


@cache
def _projection(shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(H,W) -> (3,H,W) what a metre along each infrared pixel's ray adds, and (3,) what the camera's position adds."""
    height, width = shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 1, 2).astype(np.float64)
    lens = np.array(INFRARED.distortion)
    flat = cv2.undistortPoints(pixels, INFRARED.matrix(shape).astype(np.float64), lens).reshape(-1, 2)
    rays = np.concatenate([flat, np.ones((len(flat), 1))], axis=1).T  # (3,N), each 1 m along the optical axis
    colour = COLOUR.matrix(shape).astype(np.float64)
    seen = (colour @ TURN @ rays).reshape(3, height, width)  # column and row times distance, and distance
    return seen.astype(np.float32), (colour @ MOVE).astype(np.float32)


@cache
def _undistortion(size: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(H,W) -> two (H,W): column and row of the recorded image to sample."""
    matrix, lens = COLOUR.matrix(size).astype(np.float64), np.array(COLOUR.distortion)
    # The same matrix before and after: only the distortion is removed, so the published camera stays right.
    across, down = cv2.initUndistortRectifyMap(matrix, lens, np.eye(3), matrix, size[::-1], cv2.CV_32FC1)
    return np.asarray(across, np.float32), np.asarray(down, np.float32)
