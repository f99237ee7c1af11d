"""Colour jitter is albumentations' to the bit, in whatever order, and leaves the image alone."""

from __future__ import annotations

import random
import subprocess
import sys

import albumentations as A
import cv2
import numpy as np
import pytest
from paths import ROOT

from depthray.config.sections import Augment
from depthray.data.augmentation.jitter import JITTER, draw_jitter, jitter

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


def test_it_is_drawn_as_by_albumentations() -> None:
    section = Augment(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)
    for seed in range(20):
        TRANSFORM.set_random_state(np.random.default_rng(seed), random.Random(seed))
        assert draw_jitter(section, np.random.default_rng(seed), random.Random(seed)) == TRANSFORM.get_params()


def test_without_other_changes_albumentations_is_not_imported() -> None:
    code = (
        "import sys, numpy as np; from depthray.config.sections import Augment; "
        "from depthray.data.augmentation.augment import augment; "
        "sample = {'image': np.full((8, 8, 3), 9, np.uint8), 'id': 'a'}; "
        "augment(sample, Augment(brightness=0.2, hue=0.1), seed=0, epoch=0); print('albumentations' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
