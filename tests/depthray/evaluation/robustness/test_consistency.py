"""Crops and clips of networks whose answers are known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from depthray.errors import DataError
from depthray.evaluation.robustness import consistency
from depthray.evaluation.robustness.consistency import SHARES

HEIGHT, WIDTH = 96, 128


def of_colour(rgb: Any) -> Any:
    """1 to 6 m by the red of a pixel, at half of the size."""
    small = cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return 1 + small[..., 0].astype(np.float32) / 51


def of_colour_and_size(rgb: Any) -> Any:
    """What takes the size of things in the picture for their distance."""
    resized = cv2.resize(of_colour(rgb), (WIDTH // 2, HEIGHT // 2))
    return resized * np.float32(rgb.shape[1] / WIDTH)


def room(seed: int) -> Any:
    """A picture of smooth colours, on which resizing changes little."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(60, 200, (5, 7, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def test_a_network_that_sees_each_pixel_alone_does_not_change_in_a_crop() -> None:
    for each, share in zip(consistency.crops(of_colour, [(1, room(1)), (2, room(2))]), SHARES, strict=True):
        assert each.share == share and each.factor == pytest.approx(1, abs=0.01)
        assert each.shape <= each.change + 1e-9 < 0.015


def test_one_that_takes_size_for_distance_is_off_by_the_share_and_keeps_the_shape() -> None:
    for each in consistency.crops(of_colour_and_size, [(1, room(1)), (2, room(2))]):
        assert each.factor == pytest.approx(each.share, rel=0.02)
        assert each.change == pytest.approx(-np.log(each.share), rel=0.1) and each.shape < 0.03


def clip(count: int = 6, step: int = 3) -> list[Any]:
    """A camera that moves along a wall with a texture."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 255, (12, 24, 3), np.uint8), (WIDTH + step * count, HEIGHT))
    return [np.ascontiguousarray(wall[:, step * number : step * number + WIDTH]) for number in range(count)]


def test_depth_that_moves_with_the_picture_does_not_flicker() -> None:
    calm = consistency.flicker(of_colour, clip(), name="x")
    assert len(calm.pairs) == 5 and calm.cuts == 0 and calm.change < 0.02
    still = np.mean([np.abs(np.diff([np.log(of_colour(frame)) for frame in clip()], axis=0))])
    assert calm.change < still / 5  # without the flow it would be the motion


def test_a_scale_that_jumps_is_told_from_what_is_local() -> None:
    numbers = iter(range(6))
    jumping = consistency.flicker(lambda rgb: of_colour(rgb) * 1.1 ** (next(numbers) % 2), clip(), name="x")
    for value in (jumping.change, jumping.scale):
        assert value == pytest.approx(np.log(1.1), abs=0.02)
    rng = np.random.default_rng(0)
    noisy = consistency.flicker(
        lambda rgb: of_colour(rgb) * np.exp(rng.normal(0, 0.1, (HEIGHT // 2, WIDTH // 2))).astype(np.float32),
        clip(),
        name="x",
    )
    assert noisy.scale < 0.02 < 0.06 < noisy.change <= noisy.worst


def test_a_cut_is_left_out_and_a_clip_of_cuts_is_an_error() -> None:
    frames = clip(3)
    other = [255 - frame for frame in clip(6)[3:]]
    assert consistency.flicker(of_colour, [*frames, *other], name="x").cuts == 1
    for few in (frames[:1], [frames[0], other[0]], []):
        with pytest.raises(DataError, match=r"x: no two consecutive frames show the same"):
            consistency.flicker(of_colour, few, name="x")
