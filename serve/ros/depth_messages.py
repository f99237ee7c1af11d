"""Images of ROS -> arrays, and depth -> messages by REP 118: plain functions over objects with ROS's attributes."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.recordings import rig
from depthray.data.recordings.messages import CameraMessage, ImageMessage
from depthray.data.recordings.pixels import COLOURS, read_colour
from depthray.data.recordings.ros_messages import read_camera, read_compressed, read_image
from depthray.errors import DataError
from depthray.imaging.export import millimetres
from serve.ros.node_settings import DepthEncoding
from serve.ros.ros_interface import RosInterface

Size = tuple[int, int]  # rows, columns

FLOAT32 = 7  # sensor_msgs/PointField.FLOAT32
# A point: x, y, z, then the colour as PCL and RViz read it, 0x00RRGGBB in the bits of a float.
POINT = np.dtype([("xyz", "<f4", 3), ("bgr0", "u1", 4)])
FIELDS = (("x", 0), ("y", 4), ("z", 8), ("rgb", 12))  # name, bytes from the point's beginning


def read_rgb(message: Any, *, compressed: bool, where: str) -> NDArray[np.uint8]:
    """`sensor_msgs/Image` or `CompressedImage` -> (H,W,3) uint8 RGB; a DataError where it is no colour, or damaged."""
    read = read_compressed(message) if compressed else read_image(message)
    if isinstance(read, ImageMessage) and read.encoding not in COLOURS:
        raise DataError(
            f"{where}: images are '{read.encoding}', which is no colour of 8 bits; known are {', '.join(COLOURS)}: "
            "remap image to another topic"
        )
    return read_colour(read, where=where)


def depth_image(ros: RosInterface, header: Any, depth: NDArray[np.float32], encoding: DepthEncoding) -> Any:
    """(H,W) metres -> `sensor_msgs/Image`: 32FC1 in metres with NaN for none, or 16UC1 in millimetres with 0."""
    pixels: NDArray[Any] = millimetres(depth).astype("<u2") if encoding == "16UC1" else _or_nan(depth)
    height, width = depth.shape
    message = ros.Image(header=header, encoding=encoding, is_bigendian=0)
    message.height, message.width, message.step = height, width, width * pixels.itemsize
    message.data = _bytes(pixels)
    return message


def scale_camera(info: Any, size: Size) -> CameraMessage:
    """`sensor_msgs/CameraInfo` -> the camera of an image (h,w) that shows the same; its binning and region are gone."""
    camera = read_camera(info)
    roi = info.roi
    rows, columns = int(roi.height) or camera.height, int(roi.width) or camera.width
    if min(rows, columns) < 1:
        raise DataError("camera_info has no size: its height or width is 0")
    down, across = size[0] / rows, size[1] / columns
    # The matrices are of the sensor's complete image. Pixel centres are at whole numbers, edges at halves.
    left, top = camera.offset
    move = np.array([[across, 0, (0.5 - left) * across - 0.5], [0, down, (0.5 - top) * down - 0.5], [0, 0, 1]])
    matrix, projection = (np.array(numbers).reshape(3, -1) for numbers in (camera.matrix, camera.projection))
    return camera._replace(
        height=size[0],
        width=size[1],
        matrix=tuple((move @ matrix).ravel().tolist()),
        projection=tuple((move @ projection).ravel().tolist()),
        binning=(1, 1),
        offset=(0, 0),
    )


def camera_info(ros: RosInterface, header: Any, camera: CameraMessage, rotation: Any) -> Any:
    """The camera of an image -> `sensor_msgs/CameraInfo`; `rotation` is the 9 numbers R of the original."""
    message = ros.CameraInfo(header=header, distortion_model=camera.model)
    message.height, message.width = camera.height, camera.width
    message.d, message.k, message.p = list(camera.distortion), list(camera.matrix), list(camera.projection)
    message.r = [float(number) for number in rotation]
    return message


def point_cloud(
    ros: RosInterface,
    header: Any,
    depth: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    camera: CameraMessage,
    *,
    rectified: bool,
) -> Any:
    """(h,w) metres, its image (H,W,3) and camera -> `sensor_msgs/PointCloud2` of (h,w) points, NaN where there is none.

    x is right, y down and z forward, as in the optical frame of a camera. Of images that are not rectified, distortion
    is taken out of the points.
    """
    height, width = depth.shape
    points = np.zeros((height, width), POINT)
    points["xyz"] = np.moveaxis(_rays(camera, rectified=rectified) * _or_nan(depth), 0, 2)
    if rgb.shape[:2] != (height, width):
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    points["bgr0"][..., :3] = rgb[..., ::-1]
    message = ros.PointCloud2(header=header, is_bigendian=False, is_dense=False)
    message.fields = [ros.PointField(name=name, offset=at, datatype=FLOAT32, count=1) for name, at in FIELDS]
    message.height, message.width = height, width
    message.point_step, message.row_step = POINT.itemsize, POINT.itemsize * width
    message.data = _bytes(points)
    return message


def _rays(camera: CameraMessage, *, rectified: bool) -> NDArray[np.float32]:
    """-> (3,h,w) where a metre along the optical axis ends in each pixel"""
    lens = rig.lens_of(camera, rectified=rectified)
    if lens is None:
        raise DataError("camera_info is not calibrated: its focal length is 0; no points without one")
    if lens.distortion and lens.model not in (*rig.BROWN, *rig.FISHEYE):
        raise DataError(f"camera_info has the distortion '{lens.model}', which is not known: no points")
    return rig.rays(lens, (camera.height, camera.width))


def _or_nan(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan)).astype("<f4")


def _bytes(pixels: NDArray[Any]) -> array[int]:
    # rclpy copies an array of bytes as it is, and checks all else number by number.
    return array("B", np.ascontiguousarray(pixels).tobytes())
