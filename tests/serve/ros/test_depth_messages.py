"""Images of ROS -> arrays, and depth, cameras and points -> messages, value by value."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from recorded import compressed, image, message_of
from ros_stub import STORE, as_rclpy, built, interface

from depthray.errors import DataError
from serve.ros import depth_messages

ROS = interface()
RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
ALPHA = np.full((6, 10, 1), 9, np.uint8)
CAMERA = {
    **{"height": 12, "width": 20, "distortion_model": "plumb_bob", "d": [0.1, -0.05, 0.0, 0.0, 0.0]},
    **{"k": [15.0, 0, 9.0, 0, 16.0, 5.5, 0, 0, 1], "p": [14.0, 0, 9.5, -2.0, 0, 14.0, 5.0, 0, 0, 0, 1, 0]},
    **{"r": [1, 0, 0, 0, 1, 0, 0, 0, 1], "binning_x": 0, "binning_y": 0},
}


def info(*, roi: tuple[int, int, int, int] = (0, 0, 0, 0), **changes: Any) -> Any:
    header = {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": "optical"}
    region = dict(zip(("x_offset", "y_offset", "height", "width"), roi, strict=True)) | {"do_rectify": False}
    fields = {**CAMERA, **changes, "header": header, "roi": region}
    arrays = {key: np.array(fields[key], np.float64) for key in "dkpr"}
    kind = "sensor_msgs/msg/CameraInfo"
    return as_rclpy(message_of(STORE, kind, {**fields, **arrays}, ros1=False), kind)


@pytest.mark.parametrize(
    ("encoding", "pixels", "wanted"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], 2), RGB),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], 2), RGB),
        ("mono8", RGB[..., 0], np.repeat(RGB[..., :1], 3, 2)),
    ],
)
@pytest.mark.parametrize(("big", "padding"), [(False, 0), (True, 0), (False, 5), (True, 3)])
def test_colours_are_read_whatever_their_order_and_rows(
    encoding: str, pixels: np.ndarray, wanted: np.ndarray, big: bool, padding: int
) -> None:
    made = built(image("/i", 5, np.ascontiguousarray(pixels), encoding, big=big, padding=padding))
    np.testing.assert_array_equal(depth_messages.read_rgb(made, compressed=False, where="/i"), wanted)


def test_files_in_messages_are_read() -> None:
    made = built(compressed("/i", 5, cv2.imencode(".png", RGB[..., ::-1])[1].tobytes(), "rgb8; png compressed bgr8"))
    np.testing.assert_array_equal(depth_messages.read_rgb(made, compressed=True, where="/i"), RGB)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "mono16", "rgb16", "bayer_rggb16", "nv21", ""])
def test_other_encodings_are_one_clear_line(encoding: str) -> None:
    made = built(image("/i", 5, np.zeros((2, 3), np.uint16), encoding))
    with pytest.raises(DataError, match=rf"^/camera: images are '{encoding}', .* known are rgb8, .* remap image to"):
        depth_messages.read_rgb(made, compressed=False, where="/camera")


@pytest.mark.parametrize("field", ["height", "width", "step"])
def test_damaged_images_are_one_clear_line(field: str) -> None:
    made = built(image("/i", 5, RGB, "rgb8"))
    setattr(made, field, 200)
    with pytest.raises(DataError, match=r"/i: 180 bytes for .* the message is damaged"):
        depth_messages.read_rgb(made, compressed=False, where="/i")
    torn = built(compressed("/i", 5, b"\xff\xd8\xff torn", "jpeg"))
    with pytest.raises(DataError, match="/i: not a readable image of format 'jpeg'"):
        depth_messages.read_rgb(torn, compressed=True, where="/i")


DEPTH = np.array([[1.2344, 0, np.nan], [np.inf, -1, 70.0]], np.float32)


def test_depth_in_metres_has_nan_where_there_is_none() -> None:
    made = depth_messages.depth_image(ROS, "header", DEPTH, "32FC1")
    assert (made.header, made.encoding, made.height, made.width, made.step) == ("header", "32FC1", 2, 3, 12)
    np.testing.assert_array_equal(
        np.frombuffer(made.data, "<f4").reshape(2, 3), [[DEPTH[0, 0], np.nan, np.nan], [np.nan, np.nan, 70.0]]
    )
    assert made.is_bigendian == 0


def test_depth_in_millimetres_has_0_where_there_is_none() -> None:
    made = depth_messages.depth_image(ROS, "header", DEPTH, "16UC1")
    assert (made.encoding, made.step) == ("16UC1", 6)
    np.testing.assert_array_equal(np.frombuffer(made.data, "<u2").reshape(2, 3), [[1234, 0, 0], [0, 0, 65535]])


def test_a_camera_of_its_own_size_stays_as_it_is() -> None:
    given = info()
    made = depth_messages.camera_info(ROS, "h", depth_messages.scale_camera(given, (12, 20)), given.r)
    assert (made.height, made.width, made.distortion_model, made.header) == (12, 20, "plumb_bob", "h")
    for name in "dkpr":
        assert getattr(made, name) == getattr(given, name), name


def project(made: Any, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k = np.reshape(made.matrix, (3, 3)) @ point
    p = np.reshape(made.projection, (3, 4)) @ [*point, 1]
    return k[:2] / k[2], p[:2] / p[2]


@pytest.mark.parametrize(
    ("changes", "size", "part"),
    [
        ({}, (6, 10), (0, 0, 12, 20)),
        ({}, (24, 10), (0, 0, 12, 20)),  # a network's own map has another aspect
        ({"binning_x": 2, "binning_y": 2}, (6, 10), (0, 0, 12, 20)),
        ({"roi": (4, 2, 8, 10)}, (8, 10), (4, 2, 8, 10)),
        ({"roi": (4, 2, 8, 10), "binning_x": 2, "binning_y": 2}, (16, 20), (4, 2, 8, 10)),
    ],
)
def test_a_camera_is_scaled_to_the_pixels_of_the_output(
    changes: dict[str, Any], size: tuple[int, int], part: tuple[int, int, int, int]
) -> None:
    """A point is at the same share of the image's width and height as it was of the part that the image shows."""
    whole, scaled = depth_messages.scale_camera(info(), (12, 20)), depth_messages.scale_camera(info(**changes), size)
    left, top, rows, columns = part
    for point in np.random.default_rng(1).uniform((-1, -1, 2), (1, 1, 4), (5, 3)):
        for before, after in zip(project(whole, point), project(scaled, point), strict=True):
            share = (before + 0.5 - (left, top)) / (columns, rows)
            np.testing.assert_allclose((after + 0.5) / size[::-1], share, atol=1e-9)
    assert (scaled.binning, scaled.offset, scaled.distortion) == ((1, 1), (0, 0), (0.1, -0.05, 0, 0, 0))


def cloud(made: Any) -> tuple[np.ndarray, np.ndarray]:
    floats = np.frombuffer(made.data, "<f4").reshape(made.height, made.width, 4)
    packed = np.frombuffer(made.data, "<u4").reshape(made.height, made.width, 4)[..., 3]
    return floats[..., :3], np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)


@pytest.mark.parametrize("lens", ["none", "plumb_bob", "equidistant", "rectified"])
def test_points_are_where_the_camera_sees_them(lens: str) -> None:
    """Projected by the camera that took them, with its distortion, they are at the centres of their pixels."""
    model = "equidistant" if lens == "equidistant" else "plumb_bob"
    terms = {"none": [0.0] * 5, "equidistant": [0.05, 0.01, 0.0, 0.0]}.get(lens, CAMERA["d"])
    camera = depth_messages.scale_camera(info(d=terms, distortion_model=model), (12, 20))
    depth = np.random.default_rng(2).uniform(1, 5, (12, 20)).astype(np.float32)
    depth[3, 4] = 0
    rgb = np.random.default_rng(3).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    made = depth_messages.point_cloud(ROS, "h", depth, rgb, camera, rectified=lens == "rectified")
    xyz, colours = cloud(made)
    layout = [(each.name, each.offset, each.datatype, each.count) for each in made.fields]
    assert layout == [("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1)]
    assert (made.point_step, made.row_step, len(made.data)) == (16, 320, 16 * 12 * 20)
    np.testing.assert_array_equal(colours, rgb)
    assert np.isnan(xyz[3, 4]).all() and not made.is_dense
    seen = depth > 0
    np.testing.assert_array_equal(xyz[seen][:, 2], depth[seen])
    points, columns_rows = xyz[seen].astype(np.float64), np.argwhere(seen)[:, ::-1]
    if lens == "rectified":
        matrix, terms = np.reshape(camera.projection, (3, 4))[:, :3], [0.0] * 5
    else:
        matrix = np.reshape(camera.matrix, (3, 3))
    project_points = cv2.fisheye.projectPoints if lens == "equidistant" else cv2.projectPoints
    pixels, _ = project_points(points[:, None], np.zeros(3), np.zeros(3), matrix, np.array(terms))
    np.testing.assert_allclose(pixels.reshape(-1, 2), columns_rows, atol=2e-3)


def test_points_of_a_smaller_map_have_its_colours() -> None:
    camera = depth_messages.scale_camera(info(), (6, 10))
    rgb = np.repeat(np.repeat(RGB, 2, 0), 2, 1)
    made = depth_messages.point_cloud(ROS, "h", np.ones((6, 10), np.float32), rgb, camera, rectified=False)
    np.testing.assert_array_equal(cloud(made)[1], RGB)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": [0.0] * 9}, "camera_info is not calibrated"),
        ({"distortion_model": "mine"}, "camera_info has the distortion 'mine', which is not known"),
        ({"height": 0}, "camera_info has no size"),
    ],
)
def test_cameras_that_give_no_points_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    def points() -> None:
        camera = depth_messages.scale_camera(info(**changes), (12, 20))
        depth_messages.point_cloud(ROS, "h", np.ones((12, 20), np.float32), RGB, camera, rectified=False)

    with pytest.raises(DataError, match=message):
        points()
