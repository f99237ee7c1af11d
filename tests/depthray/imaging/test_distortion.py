"""Rays of pixels through a lens, against OpenCV, and point clouds along them."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from depthray.__main__ import main
from depthray.errors import UsageError
from depthray.imaging import export
from depthray.imaging.camera import Camera, as_camera, unproject
from depthray.imaging.depth_map import DepthMap
from depthray.imaging.distortion import COUNTS, DistortedCamera, read_distortion

PINHOLE = Camera(300.0, 310.0, 319.5, 239.5)
BROWN = (-0.28, 0.09, 1e-3, -5e-4, -0.01)
RATIONAL = (0.1, -0.05, -3e-4, 2e-4, 0.01, 0.2, -0.02, 0.002)
FISHEYE = (0.05, -0.01, 0.003, -5e-4)
LENSES = [("brown-conrady", BROWN[:4]), ("brown-conrady", BROWN), ("brown-conrady", RATIONAL), ("fisheye", FISHEYE)]


def pixels() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    v, u = np.mgrid[:480:16, :640:16]
    return u.ravel(), v.ravel()


@pytest.mark.parametrize(("model", "coefficients"), LENSES)
def test_rays_are_those_of_opencv(model: str, coefficients: tuple[float, ...]) -> None:
    u, v = pixels()
    points = np.stack([u, v], axis=-1).astype(np.float64).reshape(-1, 1, 2)
    matrix, numbers = PINHOLE.matrix().astype(np.float64), np.array(coefficients)
    if model == "fisheye":
        expected = cv2.fisheye.undistortPoints(points, matrix, numbers)
    else:
        many = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-12)
        expected = cv2.undistortPoints(points, matrix, numbers, criteria=many)
    found = np.stack(DistortedCamera.of(PINHOLE, model, coefficients).rays(u, v), axis=-1)
    np.testing.assert_allclose(found, np.asarray(expected).reshape(-1, 2), atol=2e-5)


@pytest.mark.parametrize(("model", "coefficients"), LENSES)
def test_a_point_that_is_seen_through_the_lens_is_found(model: str, coefficients: tuple[float, ...]) -> None:
    """Forward by OpenCV's projection, back by a ray and the depth of the point."""
    lens = DistortedCamera.of(PINHOLE, model, coefficients)
    points = np.random.default_rng(0).uniform((-1, -0.7, 1.5), (1, 0.7, 6), (20, 3))
    matrix, numbers = PINHOLE.matrix().astype(np.float64), np.array(coefficients)
    project: Any = cv2.fisheye.projectPoints if model == "fisheye" else cv2.projectPoints
    seen, _ = project(points.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), matrix, numbers)
    for (u, v), point in zip(np.asarray(seen).reshape(-1, 2), points, strict=True):
        np.testing.assert_allclose(unproject(u, v, point[2], camera=lens), point, atol=1e-5)


def test_the_inverse_model_is_the_polynomial_itself() -> None:
    u, v = pixels()
    flat = np.stack([(u - PINHOLE.cx) / PINHOLE.fx, (v - PINHOLE.cy) / PINHOLE.fy, np.ones(len(u))], axis=-1)
    seen, _ = cv2.projectPoints(flat, np.zeros(3), np.zeros(3), np.eye(3), np.array(BROWN))
    found = DistortedCamera.of(PINHOLE, "inverse-brown-conrady", BROWN).rays(u, v)
    np.testing.assert_allclose(np.stack(found, axis=-1), np.asarray(seen).reshape(-1, 2), atol=1e-9)


def test_without_coefficients_it_is_a_pinhole_camera() -> None:
    u, v = pixels()
    for model, zeros in (("brown-conrady", [0] * 5), ("inverse-brown-conrady", [0] * 4)):
        np.testing.assert_allclose(DistortedCamera.of(PINHOLE, model, zeros).rays(u, v), PINHOLE.rays(u, v), atol=1e-9)
    angle = np.hypot(*PINHOLE.rays(u, v))
    right, down = DistortedCamera.of(PINHOLE, "fisheye", [0] * 4).rays(u, v)
    np.testing.assert_allclose(np.hypot(right, down), np.tan(angle), rtol=1e-6)  # equidistant: closed


def test_pixels_that_no_ray_ends_at_have_no_point() -> None:
    """Beyond 90 degrees of a fisheye, and beyond the fold of a polynomial, at the corners of an image."""
    depth, rgb = np.full((240, 320), 2.0, np.float32), np.zeros((240, 320, 3), np.uint8)
    fold = math.sqrt(1 / 1.2)  # where r (1 - 0.4 r^2) is largest
    for model, numbers, radius in (
        ("fisheye", [0] * 4, 70 * math.pi / 2),
        ("brown-conrady", [-0.4, 0, 0, 0], 70 * fold * (1 - 0.4 * fold**2)),
    ):
        camera = DistortedCamera.of(Camera(70, 70, 159.5, 119.5), model, numbers)
        cloud = export.points(depth, rgb, camera=camera)
        assert cloud.size == pytest.approx(math.pi * radius**2, rel=0.01) and np.isfinite(cloud["xyz"]).all()
        glb = export.encode_glb(depth, rgb, camera=camera, confidence=np.ones_like(depth))
        assert len(glb) > 16 * cloud.size
    middle = DistortedCamera.of(PINHOLE._replace(cx=320.0, cy=240.0), "fisheye", FISHEYE)
    assert [float(each[0]) for each in middle.rays(np.array([320]), np.array([240]))] == [0, 0]


def test_the_lens_follows_the_camera() -> None:
    lens = DistortedCamera.of(PINHOLE, "brown-conrady", BROWN)
    small = lens.scaled(0.5, 0.25)
    assert isinstance(small, DistortedCamera) and small[:2] == (75, 155) and small.coefficients == BROWN
    np.testing.assert_allclose(
        small.rays(np.array([10]), np.array([20])), lens.rays(np.array([41.5]), np.array([40.5])), atol=1e-9
    )
    assert as_camera(lens) is lens and deepcopy(lens).coefficients == BROWN
    depth = DepthMap(np.ones((480, 640), np.float32), image=np.zeros((480, 640, 3), np.uint8))
    assert np.abs(depth.points(lens)["xyz"] - depth.points(PINHOLE)["xyz"]).max() > 0.05


@pytest.mark.parametrize(
    ("text", "model", "camera", "message"),
    [
        ("0.1,x", "fisheye", PINHOLE, "--distortion=0.1,x: give numbers"),
        ("0.1,0.2", "fisheye", PINHOLE, "distortion of fisheye is 4 finite numbers, and 2 are given"),
        ("0,0,0,0,0,0", "brown-conrady", PINHOLE, "is 4 or 5 or 8 finite numbers"),
        ("0,0,0,nan", "brown-conrady", PINHOLE, "finite numbers"),
        ("0,0,0,0", "mei", PINHOLE, "camera model 'mei': give one of brown-conrady, fisheye"),
        ("0,0,0,0", "fisheye", None, "give its fx,fy,cx,cy too"),
    ],
)
def test_what_is_no_lens_is_refused(text: str, model: str, camera: Camera | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_distortion(text, model, camera)
    assert set(COUNTS) == {"brown-conrady", "fisheye", "inverse-brown-conrady"}


def test_flags_that_have_no_camera_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((20, 20, 3), np.uint8))
    for flags, message in (
        (["--distortion", "0,0,0,0"], "--intrinsics"),
        (["--camera-model", "fisheye"], "--distortion"),
        (["--intrinsics", "9,9,9,9", "--distortion", "0,0", "--camera-model", "fisheye"], "4 finite numbers"),
    ):
        assert main(["predict", str(tmp_path / "run"), str(image), *flags]) == UsageError.exit_code
        assert message in capsys.readouterr().err
