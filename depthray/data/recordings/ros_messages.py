"""Messages of ROS as recorded, serialised by ROS 1 or as CDR by ROS 2 -> `depthray.data.recordings.messages`.

The types that are read have had the same fields since ROS 2 Foxy, so that those of rosbags' own stores serve for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from depthray.data.recordings.messages import (
    CAMERA,
    COMPRESSED,
    IMAGE,
    TRANSFORMS,
    CameraMessage,
    CompressedMessage,
    ImageMessage,
    Link,
    Message,
    TransformsMessage,
)
from depthray.data.recordings.recording import import_library
from depthray.errors import DataError

TF = "tf2_msgs/msg/TFMessage"
KINDS = {
    "sensor_msgs/msg/Image": IMAGE,
    "sensor_msgs/msg/CompressedImage": COMPRESSED,
    "sensor_msgs/msg/CameraInfo": CAMERA,
    TF: TRANSFORMS,
    "tf/msg/tfMessage": TRANSFORMS,
}
ROS1, ROS2 = "ros1", "cdr"  # how messages are serialised


def kind_of(msgtype: str) -> str:
    """The kind of a type of message, `sensor_msgs/msg/Image` or `sensor_msgs/Image`; "" where it is not read."""
    package, _, name = msgtype.rpartition("/")
    return KINDS.get(f"{package.removesuffix('/msg')}/msg/{name}", "")


def decode(raw: bytes, kind: str, *, serialised: str, where: str) -> Message:
    """The bytes of a message of a kind -> the message; a DataError where they are not one."""
    msgtype = next(name for name, known in KINDS.items() if known == kind)
    try:
        return _READERS[kind](_deserialiser(serialised)(raw, msgtype))
    # Whatever numbers are at the place of lengths and texts lead to.
    except Exception as error:
        raise DataError(f"{where}: a damaged message of {msgtype}: {error or type(error).__name__}") from None


@lru_cache
def _deserialiser(serialised: str) -> Callable[[bytes, str], Any]:
    typesys = import_library("rosbags.typesys", what="a recording of ROS")
    if serialised == ROS1:
        store = typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
        store.register(
            typesys.get_types_from_msg("geometry_msgs/TransformStamped[] transforms", TF)
        )  # not in the store
        return store.deserialize_ros1  # type: ignore[no-any-return]
    return typesys.get_typestore(typesys.Stores.ROS2_HUMBLE).deserialize_cdr  # type: ignore[no-any-return]


def _stamp(header: Any) -> int:
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def read_image(message: Any) -> ImageMessage:
    """An object with the attributes of `sensor_msgs/Image`, of rosbags or rclpy."""
    return ImageMessage(
        stamp=_stamp(message.header),
        frame=message.header.frame_id,
        encoding=message.encoding,
        height=int(message.height),
        width=int(message.width),
        step=int(message.step),
        big_endian=bool(message.is_bigendian),
        data=np.asarray(message.data, np.uint8),
    )


def read_compressed(message: Any) -> CompressedMessage:
    """An object with the attributes of `sensor_msgs/CompressedImage`."""
    return CompressedMessage(
        _stamp(message.header), message.header.frame_id, message.format, np.asarray(message.data, np.uint8)
    )


def read_camera(message: Any) -> CameraMessage:
    """An object with the attributes of `sensor_msgs/CameraInfo`."""
    # ROS 1 has capital letters.
    distortion, matrix, projection = (
        tuple(float(number) for number in getattr(message, name, getattr(message, name.upper(), ()))) for name in "dkp"
    )
    roi = message.roi
    return CameraMessage(
        stamp=_stamp(message.header),
        frame=message.header.frame_id,
        height=int(message.height),
        width=int(message.width),
        model=message.distortion_model,
        distortion=distortion,
        matrix=matrix,
        projection=projection,
        binning=(max(int(message.binning_x), 1), max(int(message.binning_y), 1)),  # 0 means 1
        offset=(int(roi.x_offset), int(roi.y_offset)),
    )


def read_transform(transform: Any, *, parent: str, child: str) -> Link:
    """A `geometry_msgs/Transform` between two named frames."""
    move, turn = transform.translation, transform.rotation
    return Link(
        parent.lstrip("/"),  # as ROS 1 wrote some
        child.lstrip("/"),
        (float(move.x), float(move.y), float(move.z)),
        (float(turn.x), float(turn.y), float(turn.z), float(turn.w)),
    )


def decode_transform(raw: bytes, *, where: str) -> Any:
    """The bytes of a `geometry_msgs/Transform` of ROS 1 -> the message; a DataError where they are not one."""
    try:
        return _deserialiser(ROS1)(raw, "geometry_msgs/msg/Transform")
    except Exception as error:
        raise DataError(f"{where}: a damaged transform: {error or type(error).__name__}") from None


def _read_transforms(message: Any) -> TransformsMessage:
    links = tuple(
        read_transform(each.transform, parent=each.header.frame_id, child=each.child_frame_id)
        for each in message.transforms
    )
    return TransformsMessage(_stamp(message.transforms[0].header) if links else 0, links)


_READERS: dict[str, Callable[[Any], Message]] = {
    IMAGE: read_image,
    COMPRESSED: read_compressed,
    CAMERA: read_camera,
    TRANSFORMS: _read_transforms,
}
