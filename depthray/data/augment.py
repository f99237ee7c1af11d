"""Random changes of a training sample: a pure function of (seed, epoch, sample id).

The same sample of the same epoch is changed alike in any process, of any number of them. Geometry is that of
geometry.py; photometry is done by albumentations, which only this file imports.
"""

from __future__ import annotations

import math
import os
import random
import threading
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS, Sample
from depthray.config.sections import Augment
from depthray.data.geometry import crop, crop_to, kitti_benchmark_crop, mirror, rotate, zoom_depth, zoom_share
from depthray.data.resize import resize

BLUR_SIGMA = (0.3, 1.5)  # pixels
NOISE_SIGMA = (0.01, 0.05)  # of the full scale
SHIFT = 0.2  # largest change of brightness and contrast by brightness_contrast
HUE, SATURATION, VALUE = 20, 30, 20  # largest shifts by hue_saturation_value, of OpenCV's 180, 255, 255
JITTER = ("brightness", "contrast", "saturation", "hue")


def augment(
    sample: Sample,
    section: Augment,
    *,
    seed: int,
    epoch: int,
    size: tuple[int, int] | None = None,
    frame_size: tuple[int, int] | None = None,
    measured: tuple[float, float] = (0.0, math.inf),
) -> Sample:
    """Sample (H,W) -> changed sample of size (h,w) pixels, its own size if None; maps stay in metres and ids.

    `frame_size` is the size of complete frames of which plain crops are cut, their own if None; `measured` are the
    limits in metres within which depth counts. See the recipe's `augment` section for all else.
    """
    generator = generator_of(f"{seed}:{epoch}:{sample['id']}")
    # All are always drawn, so that switching one change on leaves the others as they were.
    flip, share, left, top, turn = generator.random(5)
    target = size or sample["image"].shape[:2]
    if section.crop_mode == "resize":
        if section.crop < 1:
            share = section.crop + (1 - section.crop) * share
            sample = _zoom(sample, section, share, left=left, top=top, measured=measured)
        sample = resize(sample, target)
    elif section.crop_mode == "kb":
        sample = kitti_benchmark_crop(sample)
    else:
        sample = resize(sample, frame_size or sample["image"].shape[:2])
    if section.rotate > 0:
        sample = rotate(sample, section.rotate * (2 * turn - 1))
    if flip < section.hflip:
        sample = mirror(sample)
    if section.crop_mode != "resize":
        sample = crop_to(sample, target, left=left, top=top)
    return photometry(sample, section, generator)


def _zoom(
    sample: Sample, section: Augment, share: float, *, left: float, top: float, measured: tuple[float, float]
) -> Sample:
    """Sample (H,W) -> the crop (h,w) of `share` of it, its depth that of the frame's own focal length."""
    cropped = crop(sample, share, left=left, top=top)
    if not section.zoom_depth:
        return cropped
    return zoom_depth(cropped, zoom_share(cropped, sample), measured=measured)


def generator_of(key: str) -> np.random.Generator:
    """The random numbers of a key: the same in every process, unlike those of any other key."""
    digest = blake2b(key.encode(), digest_size=16).digest()
    return np.random.default_rng([int.from_bytes(digest[:8]), int.from_bytes(digest[8:])])


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
