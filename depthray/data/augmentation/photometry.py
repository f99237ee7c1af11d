"""Random brightness, colour, sharpness and noise of RGB, drawn and made on the CPU by albumentations.

Only this file imports it. What is drawn is apart from making it, which may be done on a device: see device_colour.py.
Colour jitter, which most recipes have alone, is jitter.py's: to the same bits, in half of the time.
"""

from __future__ import annotations

import os
import random
import threading
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS, Sample
from depthray.config.sections import Augment
from depthray.data.augmentation.jitter import JITTER, draw_jitter, jitter

BLUR_SIGMA = (0.3, 1.5)  # pixels
NOISE_SIGMA = (0.01, 0.05)  # of the full scale
SHIFT = 0.2  # largest change of brightness and contrast by brightness_contrast
HUE, SATURATION, VALUE = 20, 30, 20  # largest shifts by hue_saturation_value, of OpenCV's 180, 255, 255
OF_COLOUR = ("jitter", "brightness_contrast", "hue_saturation_value")  # in the order in which they are made
OF_SENSOR = ("blur", "noise")

Drawn = dict[str, dict[str, Any]]  # the changes that a sample gets by name, with albumentations' parameters of each
Transforms = dict[str, Any]

_ANY = np.zeros((1, 1, 3), np.uint8)  # parameters ask for an image, of which only the dtype matters


def draw(section: Augment, generator: np.random.Generator) -> Drawn:
    """What is drawn of a sample's colours, but for the pixels of its noise, which are drawn next."""
    drawn: Drawn = {}
    jitters = any(getattr(section, key) for key in JITTER)
    for transforms, is_jittered in zip(_transforms(section, threading.get_ident()), (jitters, False), strict=True):
        if not transforms and not is_jittered:
            continue
        # One shared stream for all: each with a seed of its own would start on the same numbers, tying blur to noise.
        uniform = random.Random(int(generator.integers(2**63)))
        uniform.random()  # as albumentations' own pipeline draws whether it runs at all
        if is_jittered:
            drawn["jitter"] = draw_jitter(section, generator, uniform)
        for name, transform in transforms.items():
            transform.set_random_state(generator, uniform)
            if not transform.should_apply():
                continue
            drawn[name] = {"transform": transform, **transform.get_params()}
            if name != "noise":
                drawn[name] |= transform.get_params_dependent_on_data({}, {"image": _ANY})
    return drawn


def draw_noise(drawn: Drawn, generator: np.random.Generator) -> tuple[float, int]:
    """-> the standard deviation of a sample's noise in values of 255, and a seed for its pixels; (0, 0) without noise.

    For noise that is made on a device, instead of that which `change_colours` draws.
    """
    if "noise" not in drawn:
        return 0.0, 0
    return 255 * drawn["noise"]["transform"].py_random.uniform(*NOISE_SIGMA), int(generator.integers(2**63))


def change_colours(sample: Sample, drawn: Drawn) -> Sample:
    """Sample (H,W) -> the same with what was drawn made of its RGB; image and background alike."""
    keys = [key for key in COLOURS if key in sample]
    changed: dict[str, Any] = dict(sample)
    of_colour = [drawn[name] for name in OF_COLOUR if name in drawn]
    if of_colour:
        # One tall image: contrast is relative to the mean, which has to be the same for image and background.
        tall = np.concatenate([changed[key] for key in keys]) if len(keys) > 1 else changed[keys[0]]
        for each in of_colour:
            tall = jitter(tall, each) if each is drawn.get("jitter") else _apply(each, tall)
        changed |= zip(keys, np.split(tall, len(keys)) if len(keys) > 1 else [tall], strict=True)
    for name in OF_SENSOR:
        if name in drawn:
            parameters = dict(drawn[name])
            if name == "noise":
                image = {"image": changed[keys[0]]}
                parameters |= parameters["transform"].get_params_dependent_on_data({}, image)
            changed |= {key: _apply(parameters, changed[key]) for key in keys}
    return changed  # type: ignore[return-value]


def _apply(parameters: dict[str, Any], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H,W,3) uint8 -> the same, changed"""
    # Without albumentations' pipeline, which takes as long as a small image's changes.
    changed: NDArray[np.uint8] = parameters["transform"].apply(np.ascontiguousarray(image), **parameters)
    return changed


@lru_cache(maxsize=32)
def _transforms(section: Augment, thread: int) -> tuple[Transforms, Transforms]:
    """albumentations' transforms of colour but its jitter, and of the sensor, by name, as far as the section has some.

    One set a thread: a transform holds its random state, which loader threads must not share.
    """
    chances = (section.brightness_contrast, section.hue_saturation_value, section.blur, section.noise)
    if not any(chances):
        return {}, {}  # and albumentations, whose import takes most of a second, is left out
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import queries the package index
    import albumentations as A

    colour: Transforms = {}
    sensor: Transforms = {}
    if chance := section.brightness_contrast:
        limits = {"brightness_limit": SHIFT, "contrast_limit": SHIFT}
        colour["brightness_contrast"] = A.RandomBrightnessContrast(**limits, p=chance)
    if chance := section.hue_saturation_value:
        colour["hue_saturation_value"] = A.HueSaturationValue(HUE, SATURATION, VALUE, p=chance)
    if section.blur:
        sensor["blur"] = A.GaussianBlur(blur_limit=0, sigma_limit=BLUR_SIGMA, p=section.blur)
    if section.noise:
        sensor["noise"] = A.GaussNoise(std_range=NOISE_SIGMA, p=section.noise)
    return colour, sensor
