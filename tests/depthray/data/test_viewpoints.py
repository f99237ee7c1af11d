"""Shadows of a sensor next to the camera, against a box in front of a wall whose shadow is known."""

from __future__ import annotations

import numpy as np
import pytest

from depthray.data import viewpoints
from depthray.imaging.camera import Camera

CAMERA = Camera(100.0, 100.0, 49.5, 29.5)
BASELINE = 0.2
LEFT, RIGHT = 40, 60  # columns of the box
NEAR, FAR = 1.0, 4.0  # metres: 20 and 5 pixels of disparity


def scene() -> np.ndarray:
    depth = np.full((60, 100), FAR, np.float32)
    depth[20:40, LEFT:RIGHT] = NEAR
    return depth


def test_a_box_hides_the_wall_at_its_left_from_a_sensor_at_its_right() -> None:
    seen = viewpoints.sees(scene(), CAMERA, baseline=BASELINE)
    row = seen[30]
    # The box covers 20 to 39 of the sensor's columns, where the wall's 25 to 44 are.
    assert not row[26:LEFT].any() and row[5:24].all()
    assert row[LEFT:RIGHT].all() and row[RIGHT:].all()
    assert not seen[:, :5].any() and seen[5, 5:].all()  # beyond its left edge, and above the box


def test_without_a_distance_all_that_is_measured_is_seen() -> None:
    depth = scene()
    depth[3] = 0
    assert np.array_equal(viewpoints.sees(depth, CAMERA, baseline=0), depth > 0)
    assert viewpoints.view(depth, CAMERA, baseline=0) is depth


def test_a_slope_does_not_hide_itself() -> None:
    depth = np.linspace(2, 5, 100, dtype=np.float32)[None].repeat(20, axis=0)
    seen = viewpoints.sees(depth, CAMERA, baseline=0.1)
    assert seen[:, 10:].all()


def test_what_only_the_other_sees_continues_the_wall() -> None:
    seen = viewpoints.view(scene(), CAMERA, baseline=BASELINE)
    row = seen[30]
    assert (row[20:40] == NEAR).all() and (row[40:55] == FAR).all() and (row[:20] == FAR).all()
    assert np.array_equal(np.unique(seen), [NEAR, FAR])


@pytest.mark.parametrize("metres", [1.0, 4.0])
def test_back_is_where_it_came_from(metres: float) -> None:
    depth = np.full((60, 100), metres, np.float32)
    rows, columns = np.nonzero(np.ones((60, 70), bool))
    seen = viewpoints.view(depth, CAMERA, baseline=BASELINE)
    places = viewpoints.back(rows, columns, seen, CAMERA, baseline=BASELINE)
    assert np.allclose(places.columns, columns + 100 * BASELINE / metres) and np.array_equal(places.rows, rows)
    assert (places.metres == metres).all()


def test_what_is_outside_of_the_other_view_is_not_seen() -> None:
    depth = np.zeros((6, 20), np.float32)
    depth[:, :2] = 1.0
    assert not viewpoints.sees(depth, CAMERA, baseline=0.1).any()


def test_nothing_measured_is_nothing_seen() -> None:
    nothing = np.zeros((6, 8), np.float32)
    assert not viewpoints.sees(nothing, CAMERA, baseline=BASELINE).any()
    assert not viewpoints.view(nothing, CAMERA, baseline=BASELINE).any()
