"""Which of a recording's frames are kept: every n-th, those in which the camera has moved, no near-duplicates."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

THUMB = (60, 80)  # height, width of what images are compared by
BLOCKS = (15, 20)  # height, width: means of blocks, in which the noise of a sensor vanishes
SHARE = 99  # percentile of the blocks: what changes is often a small part of the image

SAME_VIEW = 0.1  # agreement of phase correlation, below which two images have nothing in common

Thumb = NDArray[np.uint8]


class Skipped(NamedTuple):
    """How many frames were left out, by why."""

    duplicates: int = 0
    unmoved: int = 0


def thumbnail(image: NDArray[np.uint8]) -> Thumb:
    """(H,W,3) RGB -> (60,80) grey"""
    return np.asarray(cv2.cvtColor(cv2.resize(image, THUMB[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY))


def change(one: Thumb, other: Thumb) -> float:
    """Two thumbnails -> by how many of 255 grey levels the most changed parts differ, exposure aside."""
    blocks = [cv2.resize(each.astype(np.float32), BLOCKS[::-1], interpolation=cv2.INTER_AREA) for each in (one, other)]
    difference = blocks[1] - blocks[0]
    return float(np.percentile(np.abs(difference - np.median(difference)), SHARE))


def motion(one: Thumb, other: Thumb) -> float:
    """Two thumbnails -> how far the image has moved between them, as a share of its width; 1 for another view.

    The larger of its shift as a whole, which phase correlation finds up to half of the image, and the mean of optical
    flow where there is texture, which sees the camera go forward or roll, but only small steps.
    """
    first, second = (each.astype(np.float32) for each in (one, other))
    (across, down), agreement = cv2.phaseCorrelate(first, second, cv2.createHanningWindow(THUMB[::-1], cv2.CV_32F))
    if agreement < SAME_VIEW:
        return 1.0
    flow = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM).calc(
        one, other, np.zeros((*THUMB, 2), np.float32)
    )
    texture = np.hypot(*(cv2.Sobel(first, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))))
    pixels = np.average(np.hypot(flow[..., 0], flow[..., 1]), weights=texture + 1e-3)
    return float(max(pixels, np.hypot(across, down)) / THUMB[1])


class Chooser:
    """Keeps frames that differ from the last one that was kept."""

    def __init__(self, *, least_change: float, least_motion: float) -> None:
        self._least_change, self._least_motion = least_change, least_motion
        self._last: Thumb | None = None
        self.skipped = Skipped()

    def keep(self, image: NDArray[np.uint8]) -> bool:
        """(H,W,3) RGB of the next frame -> whether to keep it"""
        thumb = thumbnail(image)
        if self._last is not None:
            if self._least_change and change(self._last, thumb) < self._least_change:
                self.skipped = self.skipped._replace(duplicates=self.skipped.duplicates + 1)
                return False
            if self._least_motion and motion(self._last, thumb) < self._least_motion:
                self.skipped = self.skipped._replace(unmoved=self.skipped.unmoved + 1)
                return False
        self._last = thumb
        return True
