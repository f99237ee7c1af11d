"""Bags as librealsense writes them: its topics, units and transforms, by the writer of rosbags."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import rosbags.rosbag1
from recorded import START, STEP, camera, image, message_of, millimetres, picture
from rosbags.typesys import Stores, get_typestore

from depthray.config.sections import Data

DEPTH, COLOUR = "/device_0/sensor_0/Depth_0", "/device_0/sensor_1/Color_0"
FOCAL = (30.0, 0.0, 15.5, 0.0, 30.0, 11.5, 0.0, 0.0, 1.0)


def write(
    path: Path,
    *,
    count: int = 3,
    steps: int = 1000,
    newer: bool = False,
    unit: bool = True,
    shift: float = 0.0,
    model: str = "None",
    distortion: tuple[float, ...] = (0.0,) * 5,
) -> Path:
    """Depth in `steps` a metre, `shift` metres to the right of colour; `newer` files have the unit in each image."""
    store = get_typestore(Stores.ROS1_NOETIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rosbags.rosbag1.Writer(path) as writer:
        connections: dict[str, Any] = {}

        def put(topic: str, kind: str, fields: dict[str, Any], time: int, tail: bytes = b"") -> None:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            raw = bytes(store.serialize_ros1(message_of(store, kind, fields, ros1=True), kind))
            writer.write(connections[topic], time, raw + tail)

        put("/file_version", "std_msgs/msg/UInt32", {"data": 3}, 1)
        if unit:
            put("/device_0/sensor_0/option/Depth Units/value", "std_msgs/msg/Float32", {"data": 1 / steps}, 1)
        for stream, moved in ((DEPTH, shift), (COLOUR, 0.0)):
            place = {
                "translation": {"x": moved, "y": 0.0, "z": 0.0},
                "rotation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0},
            }
            put(f"{stream}/tf/0", "geometry_msgs/msg/Transform", place, 1)
            lens = camera(
                "", 0, frame="", matrix=FOCAL, model=model, distortion=distortion if stream == COLOUR else (0.0,) * 5
            )
            # As librealsense leaves it, no matrix of a rectified image.
            put(f"{stream}/info/camera_info", lens.type, {**lens.fields, "p": np.zeros(12)}, 1)
        for number in range(count):
            time, stamp = (number + 1) * STEP, START + number * STEP
            frame = "1" if newer else ""
            depth = (millimetres(number).astype(np.float64) * steps / 1000).round().astype(np.uint16)
            for stream, pixels, encoding in ((COLOUR, picture(number), "rgb8"), (DEPTH, depth, "mono16")):
                made = image("", stamp, pixels, encoding, frame=frame)
                units = 1 / steps if stream == DEPTH else 0.0
                put(f"{stream}/image/data", made.type, made.fields, time, struct.pack("<f", units) if newer else b"")
    return path


def realsense(root: Path) -> Data:
    """2 bags of 3 frames."""
    for number in range(2):
        write(root / f"{number}.bag")
    return Data(source="realsense", root=str(root), recording={"change": 0})
