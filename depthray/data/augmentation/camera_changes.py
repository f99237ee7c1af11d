"""Changes as another camera would make them: motion blur, gamma and gains of colour, JPEG; drawn, and made on the CPU.

device_camera.py makes the same of a batch on its device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS, Sample
from depthray.config.sections import Augment

REFERENCE_WIDTH = 320  # of a picture, whose motion is given in pixels
MOTION = (3.0, 15.0)  # pixels
QUALITY = (30, 90)  # of JPEG
BTS_GAMMA, BTS_COLOUR = 0.1, 0.1  # largest changes, of Lee et al. 2019

Rgb = NDArray[np.uint8]


class Tone(NamedTuple):
    """A curve of colour: v -> gain v ** exponent, of values in [0,1]."""

    exponent: float
    gains: tuple[float, float, float]  # of red, green and blue


class CameraChanges(NamedTuple):
    """What is drawn of a sample's camera, None where nothing changes."""

    motion: tuple[float, float] | None  # length in pixels of `REFERENCE_WIDTH`, degrees
    tone: Tone | None
    quality: int | None  # of JPEG


NO_CHANGES = CameraChanges(None, None, None)


def draw(section: Augment, generator: np.random.Generator) -> CameraChanges:
    """What is drawn of a sample's camera, by as many random numbers whatever the section."""
    blur, length, degrees, gamma, bts, exponent, brightness, *colours, jpeg, quality = generator.random(12).tolist()
    tone = Tone(_between(1 - section.gamma, 1 + section.gamma, gamma), (1.0, 1.0, 1.0))
    if bts < section.bts_colour:
        bright = 1 + section.bts_brightness * (2 * brightness - 1)
        red, green, blue = (bright * _between(1 - BTS_COLOUR, 1 + BTS_COLOUR, each) for each in colours)
        # One curve after another is one curve, as nothing is clipped before the gains.
        tone = Tone(tone.exponent * _between(1 - BTS_GAMMA, 1 + BTS_GAMMA, exponent), (red, green, blue))
    return CameraChanges(
        (_between(*MOTION, length), 180 * degrees) if blur < section.motion_blur else None,
        None if tone == Tone(1.0, (1.0, 1.0, 1.0)) else tone,
        round(_between(*QUALITY, quality)) if jpeg < section.jpeg else None,
    )


def expose(sample: Sample, changes: CameraChanges) -> Sample:
    """Sample (H,W) -> the same with its motion blur, then its tone; image and background alike."""
    if changes.motion is not None:
        kernel = motion_kernel(*changes.motion, width=sample["image"].shape[1])
        sample = _each(sample, lambda image: blur_by_motion(image, kernel))
    if changes.tone is not None:
        table = tone_table(changes.tone)
        sample = _each(sample, lambda image: np.asarray(cv2.LUT(image, table), np.uint8))
    return sample


def compress(sample: Sample, changes: CameraChanges) -> Sample:
    """Sample (H,W) -> the same as a JPEG shows it; image and background alike."""
    quality = changes.quality
    return sample if quality is None else _each(sample, lambda image: as_jpeg(image, quality))


def motion_kernel(length: float, degrees: float, *, width: int) -> NDArray[np.float32]:
    """-> (K,K) of sum 1: a straight line of `length` pixels at a width of 320, in a picture of another width"""
    side = max(3, round(length * width / REFERENCE_WIDTH) | 1)
    kernel = np.zeros((side, side), np.float32)
    kernel[side // 2] = 1
    turned = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((side // 2, side // 2), degrees, 1), (side, side))
    return np.asarray(turned / turned.sum(), np.float32)


def blur_by_motion(image: Rgb, kernel: NDArray[np.float32]) -> Rgb:
    """(H,W,3) uint8 and (K,K) -> (H,W,3) uint8"""
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT), np.uint8)


def tone_table(tone: Tone) -> NDArray[np.uint8]:
    """-> (256,1,3): what becomes of each value of red, green and blue"""
    curve = (np.arange(256) / 255)[:, None, None] ** tone.exponent * np.array(tone.gains)
    return np.asarray(np.rint(255 * curve.clip(0, 1)), np.uint8)


def as_jpeg(image: Rgb, quality: int) -> Rgb:
    """(H,W,3) uint8 RGB -> (H,W,3) uint8 RGB as a JPEG of this quality, 1 to 100, shows it"""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _is_written, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _each(sample: Sample, change: Callable[[Rgb], Rgb]) -> Sample:
    changed: dict[str, Any] = dict(sample)
    changed |= {key: change(np.ascontiguousarray(changed[key])) for key in COLOURS if key in changed}
    return changed  # type: ignore[return-value]


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share
