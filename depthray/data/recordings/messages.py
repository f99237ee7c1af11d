"""What is in a recording, whatever kind of file it is: images, cameras, and where the cameras are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

IMAGE, COMPRESSED, CAMERA, TRANSFORMS = "image", "compressed", "camera", "transforms"  # kinds of messages


class ImageMessage(NamedTuple):
    """An image of plain pixels, as `sensor_msgs/Image` has it."""

    stamp: int  # nanoseconds by the sensor's clock; 0 where there is none
    frame: str  # the coordinate frame of the camera
    encoding: str  # rgb8, 16UC1 ...
    height: int
    width: int
    step: int  # bytes of a row
    big_endian: bool
    data: NDArray[np.uint8]  # (height * step,)


class CompressedMessage(NamedTuple):
    """An image in a format of its own, as `sensor_msgs/CompressedImage` has it."""

    stamp: int
    frame: str
    format: str  # "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png", "png" ...
    data: NDArray[np.uint8]


class CameraMessage(NamedTuple):
    """A calibrated camera, as `sensor_msgs/CameraInfo` has it."""

    stamp: int
    frame: str
    height: int
    width: int
    model: str  # of the distortion: plumb_bob, rational_polynomial, equidistant; "" = none
    distortion: tuple[float, ...]
    matrix: tuple[float, ...]  # 9, of the image as it was taken
    projection: tuple[float, ...] = ()  # 12, of the rectified image
    binning: tuple[int, int] = (1, 1)  # across, down
    offset: tuple[int, int] = (0, 0)  # column and row of the image's first pixel in the sensor's


class Link(NamedTuple):
    """Where one coordinate frame is in another: a point of the child at p is at R p + t in the parent."""

    parent: str
    child: str
    translation: tuple[float, float, float]  # metres
    rotation: tuple[float, float, float, float]  # quaternion x, y, z, w


class TransformsMessage(NamedTuple):
    """Places of coordinate frames, as `tf2_msgs/TFMessage` has them."""

    stamp: int
    links: tuple[Link, ...]


Pictures = ImageMessage | CompressedMessage
Message = ImageMessage | CompressedMessage | CameraMessage | TransformsMessage


class Topic(NamedTuple):
    """A named series of messages."""

    name: str
    kind: str  # IMAGE, COMPRESSED, CAMERA or TRANSFORMS; "" for what is not read
    type: str  # as the recording says, for messages to the user
    number: int  # of its messages; 0 where that is not known


class RecordedMessage(NamedTuple):
    """A message of a recording."""

    topic: str
    logged: int  # nanoseconds by the clock of the recorder
    position: Any  # by which `Recording.message` finds it
    message: Message
