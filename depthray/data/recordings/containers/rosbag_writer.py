"""Bags of ROS 2 with colour, depth and their camera, written by the library rosbags.

Depth is as REP 118 says: 32FC1, metres, NaN where there is none. It has the pixels of colour, so both have one camera
and one coordinate frame. A bag may have several files, each written by itself, and one metadata.yaml for all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from depthray.data.recordings import rig
from depthray.data.recordings.clocks import SECOND
from depthray.data.recordings.recording import import_library
from depthray.data.shards.writer import translate_write_errors
from depthray.errors import ResourceError
from depthray.imaging import distortion

METADATA = "metadata.yaml"
VERSION = 8  # of the metadata; 9 has another form of QoS, which ROS before Jazzy does not read
FRAME = "camera_optical_frame"  # x right, y down, z forward
COLOUR, DEPTH = "/image", "/depth/image"
CAMERAS = {COLOUR: "/camera_info", DEPTH: "/depth/camera_info"}
MODELS = {distortion.FISHEYE: "equidistant", distortion.INVERSE: rig.INVERSE}  # others by their number of coefficients

Information = dict[str, Any]  # what metadata.yaml says of a bag


def check_library() -> None:
    """Raise UsageError where rosbags is not installed."""
    import_library("rosbags.rosbag2", what="writing a bag")


class BagFile:
    """A file of a bag, in a folder of its own that is called as the file is."""

    def __init__(self, folder: Path) -> None:
        library = import_library("rosbags.rosbag2", what="writing a bag")
        self._folder = folder
        self._writer = library.Writer(folder, version=VERSION, storage_plugin=library.StoragePlugin.SQLITE3)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagFile:
        with self._translated():
            self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._writer.abort()
            return
        with self._translated():
            self._writer.close()

    def add(
        self,
        stamp: int,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32],
        *,
        intrinsics: NDArray[np.float32] | None,
        lens: NDArray[np.float64] | None,
    ) -> None:
        """Append a frame: nanoseconds, (H,W,3) RGB, (H,W) metres, (3,3) and (9) as frames carry them."""
        header = _header(stamp)
        if intrinsics is not None:
            camera = _camera_info(header, image.shape[:2], intrinsics.astype(np.float64), lens)
            for topic in CAMERAS.values():
                self._write(topic, stamp, camera)
        self._write(COLOUR, stamp, _image(header, image, "rgb8"))
        metres = np.where(depth > 0, depth, np.float32(np.nan)).astype("<f4")
        self._write(DEPTH, stamp, _image(header, metres, "32FC1"))

    def _write(self, topic: str, stamp: int, message: Any) -> None:
        store = _store()
        with self._translated():
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(topic, message.__msgtype__, typestore=store)
            self._writer.write(self._connections[topic], stamp, store.serialize_cdr(message, message.__msgtype__))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translate_write_errors(self._folder.parent):
                yield
        except sqlite3.Error as error:
            raise ResourceError(f"{self._folder}: cannot be written: {error}") from None


def read_information(folder: Path) -> Information:
    """What the metadata of a bag says."""
    tree: dict[str, Information] = yaml.safe_load((folder / METADATA).read_text(encoding="utf-8"))
    return tree["rosbag2_bagfile_information"]


def join_information(files: Sequence[Information]) -> str:
    """The metadata of a bag that has several files, in their order, from that of each."""
    starts = [each["starting_time"]["nanoseconds_since_epoch"] for each in files]
    ends = [start + each["duration"]["nanoseconds"] for start, each in zip(starts, files, strict=True)]
    topics: dict[str, dict[str, Any]] = {}
    for each in (topic for file in files for topic in file["topics_with_message_count"]):
        known = topics.setdefault(each["topic_metadata"]["name"], {**each, "message_count": 0})
        known["message_count"] += each["message_count"]
    joined = {
        **files[0],
        "relative_file_paths": [path for each in files for path in each["relative_file_paths"]],
        "files": [file for each in files for file in each["files"]],
        "starting_time": {"nanoseconds_since_epoch": min(starts)},
        "duration": {"nanoseconds": max(ends) - min(starts)},
        "message_count": sum(each["message_count"] for each in files),
        "topics_with_message_count": [topics[name] for name in sorted(topics)],
    }
    return yaml.safe_dump({"rosbag2_bagfile_information": joined}, sort_keys=False)


@lru_cache
def _store() -> Any:
    typesys = import_library("rosbags.typesys", what="writing a bag")
    return typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)


def _type(name: str) -> Any:
    return _store().types[name]


def _header(stamp: int) -> Any:
    time = _type("builtin_interfaces/msg/Time")(sec=stamp // SECOND, nanosec=stamp % SECOND)
    return _type("std_msgs/msg/Header")(stamp=time, frame_id=FRAME)


def _image(header: Any, pixels: NDArray[Any], encoding: str) -> Any:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    return _type("sensor_msgs/msg/Image")(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def _camera_info(
    header: Any, size: tuple[int, ...], matrix: NDArray[np.float64], lens: NDArray[np.float64] | None
) -> Any:
    model, coefficients = _distortion(lens)
    whole = _type("sensor_msgs/msg/RegionOfInterest")(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return _type("sensor_msgs/msg/CameraInfo")(
        header=header,
        height=size[0],
        width=size[1],
        distortion_model=model,
        d=coefficients,
        k=matrix.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([matrix, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=whole,
    )


def _distortion(lens: NDArray[np.float64] | None) -> tuple[str, NDArray[np.float64]]:
    """The lens of a frame -> the name of its model in ROS, and its coefficients."""
    if lens is None or not lens[0]:
        return "plumb_bob", np.zeros(5)
    name = distortion.MODELS[int(lens[0])]
    count = 4 if name == distortion.FISHEYE else 8 if lens[6:].any() else 5
    return MODELS.get(name, "plumb_bob" if count == 5 else "rational_polynomial"), lens[1 : 1 + count].copy()
