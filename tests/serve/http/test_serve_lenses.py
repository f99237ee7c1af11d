"""The lens of an image in a request: its parameters, what is refused, and points along its rays."""

from __future__ import annotations

import pytest
from serve_requests import post, refused

from depthray.imaging.distortion import DistortedCamera
from serve.http import query

LENS = [("fx", "100"), ("distortion", "0.05,-0.01,1e-3,0"), ("camera_model", "fisheye")]


def test_the_camera_of_an_answer_has_the_lens() -> None:
    view = query.parse(LENS, None).view(60, 80)
    assert isinstance(view.camera, DistortedCamera) and not view.is_assumed
    assert (view.camera.model, view.camera.coefficients) == ("fisheye", (0.05, -0.01, 0.001, 0))
    assert view.origin == "given fx=100 fy=100 cx=39.5 cy=29.5 distortion=0.05,-0.01,0.001,0 camera_model=fisheye"
    usual = query.parse(LENS[:2], None).view(60, 80).camera
    assert isinstance(usual, DistortedCamera) and usual.model == "brown-conrady"


def test_points_follow_it() -> None:
    pinhole, lens = (
        post(path=f"/v1/depth?format=ply&fx=100{more}") for more in ("", "&distortion=0.3,0.1,0,0&camera_model=fisheye")
    )
    assert pinhole.status == lens.status == 200 and "distortion=0.3,0.1,0,0" in lens.headers["x-intrinsics"]
    assert len(pinhole.body) == len(lens.body) and pinhole.body != lens.body


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("distortion=0,0,0,0", 422, "distortion needs fx too"),
        ("fx=9&camera_model=fisheye", 422, "camera_model=fisheye needs distortion too"),
        ("fx=9&distortion=0,x", 400, "distortion=0,x: give numbers"),
        ("fx=9&distortion=" + ",".join("0" * 9), 400, "give numbers"),
        ("fx=9&distortion=0,0,0", 422, "distortion of brown-conrady is 4 or 5 or 8 finite numbers, and 3 are given"),
        ("fx=9&distortion=0,0,0,0&camera_model=mei", 400, "choose from brown-conrady, fisheye"),
    ],
)
def test_what_is_no_lens_is_refused(words: str, status: int, message: str) -> None:
    refused(post(path=f"/v1/depth?format=ply&{words}"), status, message)
