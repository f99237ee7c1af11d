"""How sharp the edges of a predicted depth map are compared with those of the truth (texture analysis of seed 001)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # not at run time: it imports torch, which reading and drawing depth do not need
    from depthray.batch import Metres


class Sharpness(NamedTuple):
    """Mean edge strengths in metres a pixel, over pixels whose neighbourhood is measured."""

    truth: float
    prediction: float

    @property
    def ratio(self) -> float:
        """Prediction by truth: below 1 the prediction is smoother than the world; NaN without any edge."""
        return self.prediction / self.truth if self.truth > 0 else float("nan")


def edge_strength(depth: Metres) -> Metres:
    """(H,W) metres -> (H,W) magnitude of the Sobel derivative in metres a pixel, 0 where a neighbour is unmeasured."""
    # Sobel's kernel sums to 8 times the slope; the scale makes it metres a pixel.
    x, y = (cv2.Sobel(depth, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.where(neighbours_measured(depth), np.hypot(x, y), 0).astype(np.float32)


def neighbours_measured(depth: Metres) -> NDArray[np.bool_]:
    """(H,W) metres -> (H,W) bool, where the pixel and its eight neighbours are measured"""
    measured = (np.isfinite(depth) & (depth > 0)).astype(np.uint8)
    # 3x3, the reach of Sobel's kernel; beyond the image's edge nothing counts as unmeasured.
    return cv2.erode(measured, np.ones((3, 3), np.uint8)) > 0


def sharpness(prediction: Metres, truth: Metres) -> Sharpness:
    """(H,W) and (H,W) metres -> their mean edge strengths over the same pixels."""
    # The same pixels for both maps: a hole in one of them must not change the other's mean.
    counted = neighbours_measured(truth) & neighbours_measured(prediction)
    if not counted.any():
        return Sharpness(float("nan"), float("nan"))
    return Sharpness(*(float(edge_strength(depth)[counted].mean(dtype=np.float64)) for depth in (truth, prediction)))
