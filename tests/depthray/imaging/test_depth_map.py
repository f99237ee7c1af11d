"""The result of a prediction: an array of metres that can be written, unprojected, coloured and shown in a notebook."""

from __future__ import annotations

import base64
import pickle
import re
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from depthray.errors import UsageError
from depthray.imaging import sheets
from depthray.imaging.camera import Camera, as_camera
from depthray.imaging.depth_map import DepthMap

METRES = np.linspace(1, 4, 6 * 9, dtype=np.float64).reshape(6, 9)
RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.fixture
def depth():
    return DepthMap(METRES, image=RGB)


def test_it_is_an_array_and_what_is_computed_from_it_a_plain_one(depth):
    assert issubclass(DepthMap, np.ndarray) and depth.dtype == np.float32 and depth.shape == (6, 9)
    np.testing.assert_array_equal(depth, METRES.astype(np.float32))
    for computed in (depth * 2, depth < 2, np.abs(depth), depth - depth, depth.metres, depth.max(axis=0)):
        assert type(computed) is np.ndarray
    assert isinstance(depth.min(), np.float32) and isinstance(depth[2, 3], np.float32)
    assert cv2.resize(depth, (18, 12)).shape == (12, 18)


def test_png16_is_in_millimetres(depth):
    stored = cv2.imdecode(np.frombuffer(depth.png16(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16 and np.abs(stored / 1000 - METRES).max() <= 0.0005 + 1e-6


@pytest.mark.parametrize(
    "camera",
    [Camera(10, 11, 4, 2.5), (10, 11, 4, 2.5), np.array([[10, 0, 4], [0, 11, 2.5], [0, 0, 1]]), [10.0, 11.0, 4, 2.5]],
    ids=["camera", "numbers", "matrix", "list"],
)
def test_points_are_where_the_camera_saw_them(depth, camera):
    points = depth.points(camera)
    assert points.shape == (54,)
    v, u = 4, 7
    expected = np.array([(u - 4) / 10, (v - 2.5) / 11, 1]) * METRES[v, u]
    np.testing.assert_allclose(points["xyz"][v * 9 + u], expected, rtol=1e-6)
    assert (points["rgb"][v * 9 + u] == RGB[v, u]).all()


def test_points_without_a_camera_assume_one(depth):
    corner = depth.points(degrees=90)["xyz"][0]
    assert corner[0] / corner[2] == pytest.approx(-8 / 9)  # half a pixel from 45 degrees


@pytest.mark.parametrize(
    "camera", [5, "K", (1, 2, 3), np.eye(4), np.full((3, 3), 2.0), (0, 1, 2, 3), (np.nan, 1, 2, 3)]
)
def test_what_is_no_camera_is_named(camera):
    with pytest.raises(UsageError, match="a camera is fx, fy, cx, cy in pixels, or a matrix"):
        as_camera(camera)


def test_colours_have_ends_that_can_be_given(depth):
    assert (depth.colour(0, 10) == sheets.colour_depth(depth.metres, near=0, far=10)).all()
    assert not (depth.colour() == depth.colour(0, 10)).all()
    with pytest.raises(UsageError, match="near must be below far"):
        depth.colour(5, 2)


def test_a_notebook_shows_image_and_depth(depth, monkeypatch):
    scale = Mock(wraps=sheets.depth_scale)
    monkeypatch.setattr(sheets, "depth_scale", scale)
    html = depth._repr_html_()
    assert scale.call_count == 1, "percentiles are what it takes longest for"
    pictures = [base64.b64decode(found) for found in re.findall(r'base64,([^"]+)"', html)]
    shown = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for data in pictures]
    assert (shown[0] == RGB).all() and (shown[1] == depth.colour()).all()
    assert "9x6, red 1 m to blue 4 m" in html
    wide = DepthMap(np.ones((10, 2000)), image=np.zeros((10, 2000, 3), np.uint8))._repr_html_()
    data = base64.b64decode(re.findall(r'base64,([^"]+)"', wide)[1])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1] == 480
    assert depth[0]._repr_html_() is None


def test_a_part_has_no_image_and_its_metres_still(depth):
    part = depth[1:4, 2:5]
    assert part.image is None and (part.metres == METRES[1:4, 2:5].astype(np.float32)).all()
    with pytest.raises(UsageError, match="has no image"):
        part.points()


def test_it_survives_pickling_and_never_claims_metres(depth):
    copy = pickle.loads(pickle.dumps(depth))  # noqa: S301 - our own bytes
    assert (copy == METRES.astype(np.float32)).all() and (copy.image == RGB).all() and copy.meaning == "metres"
    share = DepthMap(METRES, meaning="a share")
    for other in (share, share[1:], pickle.loads(pickle.dumps(share)), np.ones((2, 2), np.float32).view(DepthMap)):  # noqa: S301
        with pytest.raises(UsageError, match="not metres"):
            other.png16()
