"""Bags that librealsense records (`rs-record`, its viewer): of ROS 1, with names, units and transforms of its own.

Images are in no named coordinate frame; each stream's place in that of a reference is in `/tf/N` beside it. Depth is
Z16 in steps that the sensor's option "Depth Units" says, or, in newer files, the last four bytes of each image.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from depthray.data.recordings import ros_messages
from depthray.data.recordings.containers.rosbag_files import RosbagFile, scan_bag
from depthray.data.recordings.messages import (
    TRANSFORMS,
    CameraMessage,
    ImageMessage,
    Message,
    Topic,
    TransformsMessage,
)

STREAM = re.compile(r"(/device_\d+/sensor_\d+/\w+_\d+)/(?:image/data|info/camera_info|tf/(\d+))")
UNITS = re.compile(r"/device_\d+/sensor_\d+/option/Depth[ _]Units/value")
VERSIONED = struct.pack("<I", 1) + b"1"  # in place of the frame's name, of images that have the units at their end
NO_DISTORTION = ("None", "Ftheta")  # the latter is of cameras for tracking, which have no depth


class RealsenseFile(RosbagFile):
    """A bag of librealsense. See `Recording`."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name, serialised=ros_messages.ROS1)
        self._unit = 0.0

    @property
    def depth_encoding(self) -> str:  # type: ignore[override]
        """The encoding of depth: its steps as the bag says; "" where it does not."""
        return f"uint16*{self._unit:.7g}" if self._unit else ""

    def topics(self) -> list[Topic]:
        """All topics, and the unit of depth."""
        topics = super().topics()
        for topic in topics:
            if UNITS.fullmatch(topic.name) and topic.number:
                raw = scan_bag(self.path, topic.name, serialised=self.serialised)
                self._unit = struct.unpack_from("<f", raw)[0] if len(raw) >= 4 else 0.0
        return [topic._replace(kind=_kind(topic)) for topic in topics]

    def decode(self, raw: bytes, topic: str, msgtype: str) -> Message:
        """The bytes of a message -> the message, in the coordinate frame of its stream."""
        stream = STREAM.fullmatch(topic)
        if stream is None:
            return super().decode(raw, topic, msgtype)
        name = stream[1].strip("/")
        if stream[2] is not None:
            transform = ros_messages.decode_transform(raw, where=f"{self.path}: {topic}")
            link = ros_messages.read_transform(transform, parent=f"reference {stream[2]}", child=name)
            return TransformsMessage(0, (link,))
        if topic.endswith("data") and raw[12:17] == VERSIONED:
            self._unit = self._unit or struct.unpack_from("<f", raw, len(raw) - 4)[0]
            raw = raw[:-4]
        message = super().decode(raw, topic, msgtype)
        if isinstance(message, CameraMessage):
            model = "" if message.model in NO_DISTORTION else message.model.lower().replace(" ", "_")
            return message._replace(frame=name, model=model)
        return message._replace(frame=name) if isinstance(message, ImageMessage) else message


def is_realsense(topics: list[Topic]) -> bool:
    """Whether the topics of a bag are named as librealsense names them."""
    return any(STREAM.fullmatch(topic.name) for topic in topics)


def open_bag(path: Path, name: str) -> RosbagFile:
    """A bag of ROS 1, of librealsense or any other."""
    bag = RosbagFile(path, name, serialised=ros_messages.ROS1)
    return RealsenseFile(path, name) if is_realsense(bag.topics()) else bag


def _kind(topic: Topic) -> str:
    stream = STREAM.fullmatch(topic.name)
    return TRANSFORMS if stream and stream[2] is not None else topic.kind
