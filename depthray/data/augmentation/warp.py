"""Frames as a view shows them, on the CPU: each map is sampled once, with OpenCV."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS, MAPS, VOID, Metres, Sample
from depthray.data.augmentation.geometry import Affine, View
from depthray.data.resize import resize_nearest

INVERSE = cv2.WARP_INVERSE_MAP  # a view maps pixels of the picture to those of the frame
TIE = 2.0**-12  # pixels: what is in the middle between two pixels belongs to the later one, whatever the rounding


def show(sample: Sample, view: View) -> Sample:
    """Sample (H,W) -> (h,w) as the view shows it: colour interpolated, maps looked up, the camera that of the view.

    Beyond the border of a turned frame depth and ids are 0 (unmeasured), a mask is VOID: colour is mirrored there, of
    which nothing is known.
    """
    shown: dict[str, Any] = show_maps(sample, view)  # type: ignore[assignment]
    for key in COLOURS:
        if key in shown:
            shown[key] = show_colour(shown[key], view)
    if "intrinsics" in shown:
        shown["intrinsics"] = view.intrinsics
    return shown  # type: ignore[return-value]


def show_maps(sample: Sample, view: View) -> Sample:
    """Sample (H,W) -> with its maps alone (h,w) as the view shows them."""
    shown: dict[str, Any] = dict(sample)
    for key in MAPS:
        if key in shown:
            shown[key] = show_map(key, shown[key], view)
    return shown  # type: ignore[return-value]


def show_colour(image: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """(H,W,3) uint8 -> (h,w,3) uint8, interpolated; a shrunk picture is as sharp as one of averages over its pixels."""
    if view.is_cut:
        return _flip(_cut(image, view), view)
    boxes = view.boxes
    smooth = _smooth(image, boxes, view.taps)
    if view.window is None or boxes != (1, 1):
        return _warp(smooth, in_boxes(view.place, boxes), view)
    window = _cut(smooth, view)
    if window.size < 3 * math.prod(view.size):  # the smaller of the two is flipped
        return cv2.resize(_flip(window, view), view.size[::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
    return _flip(cv2.resize(window, view.size[::-1], interpolation=cv2.INTER_LINEAR), view)


def show_map(key: str, values: NDArray[Any], view: View) -> NDArray[Any]:
    """A map (H,W) -> (h,w) of the same dtype: for each pixel the value nearest to its centre, never an average."""
    if key == "sparse" and not view.is_cut:
        return _show_sparse(values, view)
    if view.window is not None:
        return _flip(resize_nearest(_cut(values, view), view.size), view)
    # OpenCV samples no int32; looked up, the bits of a number do not matter.
    same_bits = values.view(np.float32) if values.dtype == np.int32 else values
    beyond = VOID if key == "mask" else 0
    flags = INVERSE | cv2.INTER_NEAREST
    place = nearest_place(view).matrix()
    sampled = cv2.warpAffine(same_bits, place, view.size[::-1], flags=flags, borderValue=beyond)
    return sampled.view(values.dtype)


def nearest_place(view: View) -> Affine:
    """The places whose nearest pixels a view shows of maps that are not just resized."""
    # Turned, next to none is in the middle.
    return view.place if view.turned else Affine(x0=TIE, y0=TIE).after(view.place)


def _warp(image: NDArray[np.uint8], place: Affine, view: View) -> NDArray[np.uint8]:
    """(H,W,3) uint8 and the place of each pixel of the view in it -> (h,w,3) uint8, interpolated."""
    # Mirrored, since a black corner would be colour that depth says nothing about.
    border = cv2.BORDER_REFLECT_101 if view.turned else cv2.BORDER_REPLICATE
    # OpenCV takes half as long for four channels as for three.
    padded = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    size = view.size[::-1]
    warped = cv2.warpAffine(padded, place.matrix(), size, flags=INVERSE | cv2.INTER_LINEAR, borderMode=border)
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)  # type: ignore[return-value]


def _show_sparse(sparse: Metres, view: View) -> Metres:
    """(H,W) metres, mostly 0 -> (h,w) metres, each sample in the pixel that it falls into; of several the nearest.

    Looked up pixel by pixel, most of a few hundred samples would be missed when shrinking.
    """
    rows, columns = np.nonzero(sparse)
    x, y = view.place.inverse().matrix() @ np.stack([columns, rows, np.ones(len(rows))])
    row, column = (np.floor(each + 0.5 + TIE).astype(np.intp) for each in (y, x))
    inside = (row >= 0) & (row < view.size[0]) & (column >= 0) & (column < view.size[1])
    shown = np.full(view.size, np.inf, np.float32)
    np.minimum.at(shown, (row[inside], column[inside]), sparse[rows[inside], columns[inside]])
    shown[np.isinf(shown)] = 0
    return shown


def _smooth(image: NDArray[np.uint8], boxes: tuple[int, int], taps: tuple[float, float]) -> NDArray[np.uint8]:
    """(H,W,3) uint8 -> (H/box,W/box,3) uint8 averaged over boxes, then over 3 rows and columns; see `View`."""
    if boxes != (1, 1):
        rows, columns = (side // box for side, box in zip(image.shape[:2], boxes, strict=True))
        whole = image[: rows * boxes[0], : columns * boxes[1]]
        image = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if not any(taps):
        return image
    down, across = taps
    kernel = (3 if across else 1, 3 if down else 1)
    return cv2.GaussianBlur(image, kernel, _sigma(across), sigmaY=_sigma(down))  # type: ignore[return-value]


def _sigma(weight: float) -> float:
    """The weight of the neighbours in a Gaussian kernel of 3 -> its standard deviation; any for a kernel of 1."""
    return math.sqrt(-0.5 / math.log(weight / (1 - 2 * weight))) if weight else 1.0


def in_boxes(place: Affine, boxes: tuple[int, int]) -> Affine:
    """Places in a frame -> in the frame averaged over boxes of so many rows and columns."""
    down, across = boxes
    return Affine(xx=1 / across, x0=0.5 / across - 0.5, yy=1 / down, y0=0.5 / down - 0.5).after(place)


def _cut(values: NDArray[Any], view: View) -> NDArray[Any]:
    """(H,W[,C]) -> the view's window of it, not a copy: resizing or collating reads it next."""
    assert view.window is not None
    top, left, height, width = view.window
    return values[top : top + height, left : left + width]


def _flip(values: NDArray[Any], view: View) -> NDArray[Any]:
    if view.flipped and view.upside_down:
        return cv2.flip(values, -1)
    if view.flipped or view.upside_down:
        return cv2.flip(values, 1 if view.flipped else 0)
    return values
