"""Random changes of a training sample: a pure function of (seed, epoch, sample id).

The same sample of the same epoch is changed alike in any process, of any number of them. Geometry is done here, for all
maps and the camera at once; photometry is done by albumentations, which only this file imports.
"""

from __future__ import annotations

import os
import random
import threading
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS, MAPS, Sample
from depthray.config.sections import Augment
from depthray.data.resize import resize

BLUR_SIGMA = (0.3, 1.5)  # pixels
NOISE_SIGMA = (0.01, 0.05)  # of the full scale
SHIFT = 0.2  # largest change of brightness and contrast by brightness_contrast
HUE, SATURATION, VALUE = 20, 30, 20  # largest shifts by hue_saturation_value, of OpenCV's 180, 255, 255
JITTER = ("brightness", "contrast", "saturation", "hue")
FALLBACK_FOCAL = 1.0  # image widths, of the camera assumed for rotations where a sample has no intrinsics


def augment(sample: Sample, section: Augment, *, seed: int, epoch: int, size: tuple[int, int] | None = None) -> Sample:
    """Sample (H,W) -> changed sample of size (h,w) pixels, its own size if None; maps stay in metres and ids."""
    generator = generator_of(f"{seed}:{epoch}:{sample['id']}")
    # All are always drawn, so that switching one change on leaves the others as they were.
    flip, share, left, top, turn = generator.random(5)
    target = size or sample["image"].shape[:2]
    if section.crop < 1:
        share = section.crop + (1 - section.crop) * share
        sample = crop(sample, share, left=left, top=top)
    sample = resize(sample, target)
    if section.rotate > 0:
        sample = rotate(sample, section.rotate * (2 * turn - 1))
    if flip < section.hflip:
        sample = mirror(sample)
    return photometry(sample, section, generator)


def generator_of(key: str) -> np.random.Generator:
    """The random numbers of a key: the same in every process, unlike those of any other key."""
    digest = blake2b(key.encode(), digest_size=16).digest()
    return np.random.default_rng([int.from_bytes(digest[:8]), int.from_bytes(digest[8:])])


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
    h, w = max(1, round(share * height)), max(1, round(share * width))
    y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
    cropped: dict[str, Any] = dict(sample)
    for key in (*COLOURS, *MAPS):
        if key in cropped:  # a view, not a copy: `resize` reads it next
            cropped[key] = cropped[key][y : y + h, x : x + w]
    if "intrinsics" in cropped:
        move = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
        cropped["intrinsics"] = (move @ sample["intrinsics"]).astype(np.float32)
    return cropped  # type: ignore[return-value]


def rotate(sample: Sample, degrees: float) -> Sample:
    """Sample (H,W) -> (H,W) with the camera rolled about its optical axis: depth and intrinsics keep their values."""
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
            rotated[key] = _look_up(rotated[key], x, y)
    return rotated  # type: ignore[return-value]


def photometry(sample: Sample, section: Augment, generator: np.random.Generator) -> Sample:
    """Sample (H,W) -> with other brightness, colour, sharpness and noise of its RGB; image and background alike."""
    keys = [key for key in COLOURS if key in sample]
    changed: dict[str, Any] = dict(sample)
    colour, sensor = _pipelines(section, threading.get_ident())
    if colour is not None:
        # One tall image: contrast is relative to the mean, which has to be the same for image and background.
        tall = np.concatenate([changed[key] for key in keys])
        changed |= zip(keys, np.split(_apply(colour, generator, image=tall)["image"], len(keys)), strict=True)
    if sensor is not None:
        changed |= _apply(sensor, generator, **{key: changed[key] for key in keys})
    return changed  # type: ignore[return-value]


@lru_cache(maxsize=32)
def _pipelines(section: Augment, thread: int) -> tuple[Any, Any]:
    """The albumentations pipelines for colour and for the sensor, or None where the section changes nothing.

    One a thread: a pipeline holds its random state, which loader threads must not share.
    """
    jitter = {key: getattr(section, key) for key in JITTER}
    chances = (section.brightness_contrast, section.hue_saturation_value, section.blur, section.noise)
    if not (any(jitter.values()) or any(chances)):
        return None, None
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import queries the package index
    import albumentations as A

    colour = [A.ColorJitter(**jitter, p=1.0)] if any(jitter.values()) else []
    sensor: list[Any] = []
    if chance := section.brightness_contrast:
        colour.append(A.RandomBrightnessContrast(brightness_limit=SHIFT, contrast_limit=SHIFT, p=chance))
    if chance := section.hue_saturation_value:
        colour.append(A.HueSaturationValue(HUE, SATURATION, VALUE, p=chance))
    if section.blur:
        sensor.append(A.GaussianBlur(blur_limit=0, sigma_limit=BLUR_SIGMA, p=section.blur))
    if section.noise:
        sensor.append(A.GaussNoise(std_range=NOISE_SIGMA, p=section.noise))
    return (
        A.Compose(colour) if colour else None,
        A.Compose(sensor, additional_targets={"background": "image"}) if sensor else None,
    )


def _apply(pipeline: Any, generator: np.random.Generator, **images: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Named (H,W,3) uint8 -> the same, changed; every draw comes from the generator."""
    # One shared stream: `set_random_seed` would start each transform on the same numbers, tying blur to noise.
    pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
    changed: dict[str, NDArray[np.uint8]] = pipeline(**images)
    return changed


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


def _look_up(values: NDArray[Any], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[Any]:
    """(H,W) any dtype at (h,w) pixel positions -> (h,w) the nearest values, 0 (= unmeasured) beyond the border."""
    height, width = values.shape
    columns, rows = np.rint(x).astype(np.intp), np.rint(y).astype(np.intp)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    sampled: NDArray[Any] = values[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    sampled[~inside] = 0
    return sampled
