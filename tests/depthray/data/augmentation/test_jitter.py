"""Colour jitter is albumentations' to the bit, in whatever order, and leaves the image alone."""

from __future__ import annotations

import random

import albumentations as A
import cv2
import numpy as np
import pytest

from depthray.data.augmentation.jitter import JITTER, jitter

TRANSFORM = A.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2, p=1.0)


@pytest.mark.parametrize("left_out", [None, *JITTER])
def test_it_is_that_of_albumentations_bit_for_bit(left_out: str | None) -> None:
    orders = set()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        image = generator.integers(0, 256, (31, 45, 3), dtype=np.uint8)
        if seed % 2:
            image = np.asarray(cv2.GaussianBlur(image, (5, 5), 2), np.uint8)
        TRANSFORM.set_random_state(generator, random.Random(seed))
        drawn = TRANSFORM.get_params()
        if left_out is not None:
            drawn[left_out] = 0.0 if left_out == "hue" else 1.0
        before = image.copy()
        np.testing.assert_array_equal(jitter(image, drawn), TRANSFORM.apply(image, **drawn))
        np.testing.assert_array_equal(image, before)
        orders.add(tuple(drawn["order"]))
    assert len(orders) > 18  # of 24
