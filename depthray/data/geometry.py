"""Geometric changes of a sample: crops, flips and rolls of the camera move all maps and the intrinsics together."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS, MAPS, VOID, Sample
from depthray.errors import DataError

FALLBACK_FOCAL = 1.0  # image widths, of the camera assumed for rotations where a sample has no intrinsics
KITTI_BENCHMARK = (352, 1216)  # height, width in pixels of the images of KITTI's depth benchmark


def mirror(sample: Sample) -> Sample:
    """Sample (H,W) -> the same scene with left and right exchanged."""
    mirrored: dict[str, Any] = dict(sample)
    for key in (*COLOURS, *MAPS):
        if key in mirrored:
            mirrored[key] = cv2.flip(mirrored[key], 1)
    if "intrinsics" in mirrored:
        move = np.array([[-1, 0, sample["image"].shape[1] - 1], [0, 1, 0], [0, 0, 1]])
        # The mirrored camera's x axis is reversed as well, which keeps the focal length positive.
        mirrored["intrinsics"] = (move @ sample["intrinsics"] @ np.diag([-1, 1, 1])).astype(np.float32)
    return mirrored  # type: ignore[return-value]


def crop(sample: Sample, share: float, *, left: float, top: float) -> Sample:
    """Sample (H,W) -> (h,w) of `share` of its sides; left and top in [0,1) are its position in the free margin."""
    height, width = sample["image"].shape[:2]
    return crop_to(sample, (max(1, round(share * height)), max(1, round(share * width))), left=left, top=top)


def crop_to(sample: Sample, size: tuple[int, int], *, left: float, top: float) -> Sample:
    """Sample (H,W) -> (h,w) of that size; left and top in [0,1) are its position in the free margin."""
    height, width = sample["image"].shape[:2]
    h, w = size
    if h > height or w > width:
        raise DataError(
            f"frame '{sample['id']}' has {height}x{width} pixels where {h}x{w} are cut out; "
            "lower data.size, or give augment.crop_mode=resize"
        )
    return _cut(sample, (int(top * (height - h + 1)), int(left * (width - w + 1))), size)


def kitti_benchmark_crop(sample: Sample) -> Sample:
    """Sample (H,W) -> the 352x1216 pixels at the middle of its bottom, which the images of KITTI's benchmark show."""
    height, width = sample["image"].shape[:2]
    h, w = KITTI_BENCHMARK
    if h > height or w > width:
        raise DataError(
            f"frame '{sample['id']}' has {height}x{width} pixels, fewer than the {h}x{w} of augment.crop_mode=kb; "
            "it is for frames of KITTI at their own size"
        )
    return _cut(sample, (height - h, (width - w) // 2), KITTI_BENCHMARK)


def zoom_share(cropped: Sample, sample: Sample) -> float:
    """A crop (h,w) and the frame (H,W) it is of -> h/H and w/W, which differ by rounding alone, as one number."""
    (h, w), (height, width) = cropped["image"].shape[:2], sample["image"].shape[:2]
    return math.sqrt(h * w / (height * width))


def zoom_depth(sample: Sample, share: float, *, measured: tuple[float, float]) -> Sample:
    """A crop of `share` of a frame -> the same with its depth in metres times `share`; the camera is left alone.

    Resized back to the frame's size, the crop has the focal length f / share. A pinhole camera maps a point to the
    pixel f X / Z + c, so the same picture of size X / Z is taken with the focal length f at the depth

        Z' = Z * f / (f / share) = Z * share,

    and a network that is not given the camera can only learn depth for one focal length, that of complete frames.
    It is the label transform of Metric3D (Yin et al. 2023, section 3.2: D_c = D f_c / f, with f_c = f and f / share
    for f), and what sparse-to-dense (Ma and Karaman 2018) does: it zooms by s = 1 / share and divides depth by s.
    With the intrinsics of the crop, which have the focal length f / share, the points (X, Y, Z) become
    share (X, Y, Z): the scene in a smaller scale, of the same shape and in the same picture.

    `measured` are the limits in metres within which a sensor's depth counts. They are those of the depth before,
    as what is out of the sensor's reach, or clipped at its end, does not become right by a zoom: it is unmeasured.
    """
    zoomed: dict[str, Any] = dict(sample)
    factor = np.float32(share)
    if "depth" in zoomed:
        depth, (least, most) = zoomed["depth"], measured
        zoomed["depth"] = np.where((depth > least) & (depth < most), depth * factor, np.float32(0))
    if "sparse" in zoomed:
        zoomed["sparse"] = zoomed["sparse"] * factor
    return zoomed  # type: ignore[return-value]


def rotate(sample: Sample, degrees: float) -> Sample:
    """Sample (H,W) -> (H,W) with the camera rolled about its optical axis: depth and intrinsics keep their values.

    Beyond the border depth and ids are 0 (unmeasured), a mask is VOID: colour is mirrored there, of which nothing
    is known.
    """
    height, width = sample["image"].shape[:2]
    rows, columns = np.indices((height, width), np.float64)
    # The inverse: where each pixel of the result comes from. Rolling keeps z, so there is nothing to divide by.
    inverse = _roll(_pinhole(sample), -degrees)
    x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
    y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
    rotated: dict[str, Any] = dict(sample)
    for key in COLOURS:
        if key in rotated:
            rotated[key] = _interpolate(rotated[key], x, y)
    for key in MAPS:
        if key in rotated:
            rotated[key] = _look_up(rotated[key], x, y, beyond=VOID if key == "mask" else 0)
    return rotated  # type: ignore[return-value]


def _cut(sample: Sample, corner: tuple[int, int], size: tuple[int, int]) -> Sample:
    """Sample (H,W) -> (h,w) from the row and column of its corner on."""
    (y, x), (h, w) = corner, size
    cropped: dict[str, Any] = dict(sample)
    for key in (*COLOURS, *MAPS):
        if key in cropped:  # a view, not a copy: resizing or collating reads it next
            cropped[key] = cropped[key][y : y + h, x : x + w]
    if "intrinsics" in cropped:
        move = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
        cropped["intrinsics"] = (move @ sample["intrinsics"]).astype(np.float32)
    return cropped  # type: ignore[return-value]


def _pinhole(sample: Sample) -> NDArray[np.float64]:
    """Sample (H,W) -> (3,3) pinhole matrix in pixels; centred, with the fallback focal length, where it has none."""
    if "intrinsics" in sample:
        return np.array(sample["intrinsics"], dtype=np.float64)
    height, width = sample["image"].shape[:2]
    focal = FALLBACK_FOCAL * width
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def _roll(camera: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """(3,3) pinhole matrix -> (3,3) homography of the pixels when the camera rolls by degrees."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    homography: NDArray[np.float64] = camera @ turn @ np.linalg.inv(camera)
    return homography


def _interpolate(image: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(H,W,3) uint8 at (h,w) pixel positions -> (h,w,3) uint8, mirrored beyond the border."""
    positions = (x.astype(np.float32), y.astype(np.float32))
    # Mirrored, since a black corner would be colour that depth says nothing about.
    return cv2.remap(image, *positions, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)  # type: ignore[return-value]


def _look_up(values: NDArray[Any], x: NDArray[np.float64], y: NDArray[np.float64], *, beyond: int) -> NDArray[Any]:
    """(H,W) any dtype at (h,w) pixel positions -> (h,w) the nearest values, `beyond` outside of the border."""
    height, width = values.shape
    columns, rows = np.rint(x).astype(np.intp), np.rint(y).astype(np.intp)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    sampled: NDArray[Any] = values[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    sampled[~inside] = beyond
    return sampled
