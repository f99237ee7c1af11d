"""Augmentation in one pass for each change, as version 0.2.0 had it: what `loader.py` compares the loader with."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import COLOURS, MAPS, STRINGS
from depthray.config.sections import Augment, Data
from depthray.data import sparse
from depthray.data.augmentation.augment import generator_of
from depthray.data.resize import resize
from depthray.data.source import Source

Maps = dict[str, Any]


def load(source: Source, data: Data, section: Augment, indices: list[int], *, epoch: int) -> Maps:
    """Frames -> their changed samples stacked, (B,H,W[,3]), depth in float32 metres."""
    samples = [_augment(dict(source.read(index)), data, section, key=f"0:{epoch}:{index}") for index in indices]
    if "sparse" in data.inputs:
        samples = [dict(sparse.attach(sample, data.sparse, key=sample["id"])) for sample in samples]  # type: ignore[arg-type]
    return {key: _widen(key, np.stack([sample[key] for sample in samples])) for key in samples[0] if key not in STRINGS}


def _widen(key: str, stacked: NDArray[Any]) -> NDArray[Any]:
    if key in COLOURS or key == "intrinsics":
        return stacked
    return stacked.astype(np.int64 if key in ("semantics", "instances") else np.float32)


def _augment(sample: Maps, data: Data, section: Augment, *, key: str) -> Maps:
    generator = generator_of(key)
    flip, share, left, top, turn = generator.random(5)
    keys = [key for key in (*COLOURS, *MAPS) if key in sample]
    if section.crop < 1:
        share = section.crop + (1 - section.crop) * share
        height, width = sample["image"].shape[:2]
        h, w = round(share * height), round(share * width)
        y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
        sample |= {key: sample[key][y : y + h, x : x + w] for key in keys}
        inside = (sample["depth"] > data.min_depth) & (sample["depth"] < data.max_depth)
        sample["depth"] = np.where(inside, sample["depth"] * np.float32(share), np.float32(0))
    sample = dict(resize(sample, data.size))  # type: ignore[arg-type]
    if section.rotate:
        _rotate(sample, section.rotate * (2 * turn - 1))
    if flip < section.hflip:
        sample |= {key: cv2.flip(sample[key], 1) for key in keys}
    return _change_colours(sample, section, generator)


def _rotate(sample: Maps, degrees: float) -> None:
    height, width = sample["image"].shape[:2]
    rows, columns = np.indices((height, width), np.float64)
    camera = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]])
    cos, sin = np.cos(np.radians(-degrees)), np.sin(np.radians(-degrees))
    inverse = camera @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.linalg.inv(camera)
    x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
    y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
    positions = (x.astype(np.float32), y.astype(np.float32))
    nearest, row = np.rint(x).astype(np.intp), np.rint(y).astype(np.intp)
    outside = (nearest < 0) | (nearest >= width) | (row < 0) | (row >= height)
    for key in COLOURS:
        if key in sample:
            sample[key] = cv2.remap(sample[key], *positions, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    for key in MAPS:
        if key in sample:
            sample[key] = sample[key][row.clip(0, height - 1), nearest.clip(0, width - 1)]
            sample[key][outside] = 0


def _change_colours(sample: Maps, section: Augment, generator: np.random.Generator) -> Maps:
    keys = [key for key in COLOURS if key in sample]
    pipeline = _pipeline(section)
    if pipeline is not None:
        pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        tall = pipeline(image=np.concatenate([sample[key] for key in keys]))["image"]
        sample |= zip(keys, np.split(tall, len(keys)), strict=True)
    return sample


@lru_cache
def _pipeline(section: Augment) -> Any:
    """The colour changes that recipes of depthray have."""
    jitter = {key: getattr(section, key) for key in ("brightness", "contrast", "saturation", "hue")}
    changes: list[Any] = [A.ColorJitter(**jitter, p=1.0)] if any(jitter.values()) else []
    if section.brightness_contrast:
        changes.append(A.RandomBrightnessContrast(0.2, 0.2, p=section.brightness_contrast))
    if section.hue_saturation_value:
        changes.append(A.HueSaturationValue(20, 30, 20, p=section.hue_saturation_value))
    return A.Compose(changes) if changes else None
