"""Colour jitter: brightness, contrast, saturation and hue in the order that was drawn.

To the bit what albumentations' ColorJitter draws and makes of an image, which is what torchvision's does, in about half
of its time on the CPU, and without its import: tables that follow each other are one, and of three channels only the
hue goes through its table.
"""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.config.sections import Augment

JITTER = ("brightness", "contrast", "saturation", "hue")  # by the numbers of albumentations' order
HUES = 180  # OpenCV's steps of the circle
FULL = 255

Rgb = NDArray[np.uint8]
Table = NDArray[np.uint8]  # (256), what becomes of each value

_VALUES = np.arange(FULL + 1, dtype=np.float32)


def draw_jitter(section: Augment, generator: np.random.Generator, uniform: random.Random) -> dict[str, Any]:
    """The factors of `JITTER` and the `order` in which they are made, by their numbers, as albumentations draws."""
    drawn: dict[str, Any] = {}
    for name in JITTER:
        most = getattr(section, name)
        drawn[name] = uniform.uniform(-most, most) if name == "hue" else uniform.uniform(max(1 - most, 0), 1 + most)
    order = list(range(len(JITTER)))
    generator.shuffle(order)
    return {**drawn, "order": order}


def jitter(image: Rgb, drawn: dict[str, Any]) -> Rgb:
    """(H,W,3) uint8 and the factors of `JITTER` with their `order` -> (H,W,3) uint8, the image itself left alone"""
    table: Table | None = None  # that is still to be applied
    for name in (JITTER[number] for number in drawn["order"]):
        factor = drawn[name]
        if factor == (0 if name == "hue" else 1):
            continue
        if name == "brightness":
            brightened = _table(factor, 0.0)
            table = brightened if table is None else brightened[table]
            continue
        if table is not None:
            image, table = look_up(image, table), None
        if name == "contrast":
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            table = _table(factor, cv2.sumElems(grey)[0] / grey.size * (1 - factor))
        else:
            image = saturate(image, factor) if name == "saturation" else shift_hue(image, factor)
    return image if table is None else look_up(image, table)


def saturate(image: Rgb, factor: float) -> Rgb:
    """(H,W,3) -> (H,W,3), each pixel `factor` times as far from its grey"""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(grey if factor == 0 else cv2.addWeighted(image, factor, grey, 1 - factor, 0), np.uint8)


def shift_hue(image: Rgb, share: float) -> Rgb:
    """(H,W,3) -> (H,W,3) with hues moved by a share of the circle"""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    # Numbers of 16 bits, in which the share of a step is lost only after it was added.
    moved = np.mod(_VALUES.astype(np.int16) + HUES * share, HUES).astype(np.uint8)
    cv2.insertChannel(look_up(np.asarray(cv2.extractChannel(hsv, 0), np.uint8), moved), hsv, 0)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def look_up(values: NDArray[np.uint8], table: Table) -> NDArray[np.uint8]:
    """Values of any shape -> what the table has for each"""
    # Of albumentations' own package: OpenCV's takes twice as long.
    from albucore import sz_lut

    return np.asarray(sz_lut(values, table, False), np.uint8)


def _table(factor: float, added: float) -> Table:
    return (_VALUES * factor + added).clip(0, FULL).astype(np.uint8)  # rounded down
