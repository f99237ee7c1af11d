"""Recordings as robots write them, by the libraries' own writers: bags of ROS 1 and 2, and MCAP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import mcap_ros2.writer
import numpy as np
import rosbags.rosbag1
import rosbags.rosbag2
from mcap.writer import CompressionType
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from depthray.config.sections import Data
from depthray.data.rendering.render import render_frame

SIZE = (24, 32)
START = 1_700_000_000 * 10**9
STEP = 33_000_000  # nanoseconds between two images
MATRIX = (30.0, 0.0, 15.5, 0.0, 30.0, 11.5, 0.0, 0.0, 1.0)
COLOUR, DEPTH = "/camera/color/image_raw", "/camera/aligned_depth_to_color/image_raw"
OPTICAL = "camera_color_optical_frame"
TF = "geometry_msgs/TransformStamped[] transforms"


class Recorded(NamedTuple):
    """A message to write."""

    topic: str
    type: str  # as in ROS 2, sensor_msgs/msg/Image
    logged: int
    fields: dict[str, Any]


def header(stamp: int, frame: str) -> dict[str, Any]:
    return {"stamp": {"sec": stamp // 10**9, "nanosec": stamp % 10**9}, "frame_id": frame}


def image(
    topic: str,
    stamp: int,
    pixels: NDArray[Any],
    encoding: str,
    *,
    frame: str = OPTICAL,
    big: bool = False,
    padding: int = 0,
    logged: int | None = None,
) -> Recorded:
    """An image of plain pixels; `padding` bytes at the end of each row."""
    ordered = pixels.astype(pixels.dtype.newbyteorder(">")) if big else pixels
    rows = np.ascontiguousarray(ordered).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    fields = {
        "header": header(stamp, frame),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": int(big),
        "step": rows.shape[1],
        "data": rows.reshape(-1),
    }
    return Recorded(topic, "sensor_msgs/msg/Image", stamp if logged is None else logged, fields)


def compressed(topic: str, stamp: int, content: bytes, form: str, *, frame: str = OPTICAL) -> Recorded:
    fields = {"header": header(stamp, frame), "format": form, "data": np.frombuffer(content, np.uint8)}
    return Recorded(topic, "sensor_msgs/msg/CompressedImage", stamp, fields)


def camera(
    topic: str,
    stamp: int,
    *,
    frame: str = OPTICAL,
    matrix: Sequence[float] = MATRIX,
    size: tuple[int, int] = SIZE,
    model: str = "plumb_bob",
    distortion: Sequence[float] = (0.0,) * 5,
) -> Recorded:
    fields = {
        "header": header(stamp, frame),
        "height": size[0],
        "width": size[1],
        "distortion_model": model,
        "d": np.array(distortion, np.float64),
        "k": np.array(matrix, np.float64),
        "r": np.eye(3).reshape(-1),
        "p": np.insert(np.array(matrix, np.float64).reshape(3, 3), 3, 0, axis=1).reshape(-1),
        "binning_x": 0,
        "binning_y": 0,
        "roi": {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False},
    }
    return Recorded(topic, "sensor_msgs/msg/CameraInfo", stamp, fields)


def transform(topic: str, stamp: int, parent: str, child: str, numbers: Sequence[float]) -> Recorded:
    """x, y, z and quaternion x, y, z, w of the child in the parent."""
    place = {
        "translation": dict(zip("xyz", numbers[:3], strict=True)),
        "rotation": dict(zip("xyzw", numbers[3:], strict=True)),
    }
    fields = {"transforms": [{"header": header(stamp, parent), "child_frame_id": child, "transform": place}]}
    return Recorded(topic, "tf2_msgs/msg/TFMessage", stamp, fields)


@cache
def picture(number: int) -> NDArray[np.uint8]:
    """(H,W,3) uint8: the colours of a rendered frame."""
    return render_frame(0, number, height=SIZE[0], width=SIZE[1])["image"]


@cache
def millimetres(number: int) -> NDArray[np.uint16]:
    """(H,W) uint16: its depth."""
    return np.rint(render_frame(0, number, height=SIZE[0], width=SIZE[1])["depth"] * 1000).astype(np.uint16)


def aligned(count: int = 4, *, start: int = START, first: int = 0) -> list[Recorded]:
    """A camera whose depth has the pixels of its colour, 2 ms later, as a RealSense with align_depth has it."""
    messages = [camera("/camera/color/camera_info", start), camera("/camera/aligned_depth_to_color/camera_info", start)]
    for number in range(count):
        stamp = start + number * STEP
        messages.append(image(COLOUR, stamp, picture(first + number), "rgb8"))
        messages.append(image(DEPTH, stamp + 2_000_000, millimetres(first + number), "16UC1"))
    return messages


def png(pixels: NDArray[Any]) -> bytes:
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def write_bag1(path: Path, messages: Sequence[Recorded]) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg(TF, "tf2_msgs/msg/TFMessage"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with rosbags.rosbag1.Writer(path) as writer:
        _write(writer, store, messages, store.serialize_ros1, ros1=True)
    return path


def write_bag2(path: Path, messages: Sequence[Recorded], *, storage: str = "SQLITE3") -> Path:
    store = get_typestore(Stores.ROS2_HUMBLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rosbags.rosbag2.Writer(path, version=9, storage_plugin=rosbags.rosbag2.StoragePlugin[storage]) as writer:
        _write(writer, store, messages, store.serialize_cdr, ros1=False)
    return path


def write_mcap(path: Path, messages: Sequence[Recorded], *, chunk: int = 20_000, compression: str = "ZSTD") -> Path:
    """By the writer of mcap-ros2-support, with small chunks, so that a file has several."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        kind = CompressionType[compression]
        writer = mcap_ros2.writer.Writer(file, chunk_size=chunk, compression=kind)
        schemas: dict[str, Any] = {}
        for message in sorted(messages, key=lambda each: each.logged):
            if message.type not in schemas:
                text, _ = store.generate_msgdef(message.type, ros_version=2)
                schemas[message.type] = writer.register_msgdef(message.type, text)
            writer.write_message(
                message.topic, schemas[message.type], _namespace(message.fields), message.logged, message.logged
            )
        writer.finish()  # type: ignore[no-untyped-call]
    return path


WRITERS: dict[str, tuple[str, Callable[..., Path]]] = {  # form: name of the file, writer
    "rosbag": ("one.bag", write_bag1),
    "rosbag2": ("one", write_bag2),
    "mcap": ("one.mcap", write_mcap),
}


def rosbag(root: Path) -> Data:
    """2 recordings of 3 frames."""
    return _two("rosbag", root)


def rosbag2(root: Path) -> Data:
    """2 recordings of 3 frames."""
    return _two("rosbag2", root)


def mcap(root: Path) -> Data:
    """2 recordings of 3 frames."""
    return _two("mcap", root)


MAKERS: dict[str, Callable[[Path], Data]] = {"rosbag": rosbag, "rosbag2": rosbag2, "mcap": mcap}


def _two(form: str, root: Path) -> Data:
    name, write = WRITERS[form]
    for number in range(2):
        write(root / f"{number}-{name}", aligned(3, start=START + number * 10**11, first=3 * number))
    return Data(source=form, root=str(root))


def _write(writer: Any, store: Any, messages: Sequence[Recorded], serialise: Callable[..., Any], *, ros1: bool) -> None:
    connections: dict[str, Any] = {}
    for message in sorted(messages, key=lambda each: each.logged):
        if message.topic not in connections:
            connections[message.topic] = writer.add_connection(message.topic, message.type, typestore=store)
        made = message_of(store, message.type, message.fields, ros1=ros1)
        writer.write(connections[message.topic], message.logged, serialise(made, message.type))


def message_of(store: Any, name: str, fields: dict[str, Any], *, ros1: bool) -> Any:
    """A message of a type of rosbags; ROS 1 has a number in each header, and capital letters in cameras."""
    values = {}
    for field, (node, detail) in store.fielddefs[name][1]:
        value: Any = (
            0 if field == "seq" else fields[field.lower() if ros1 and len(field) == 1 and field in "DKRP" else field]
        )
        if node == Nodetype.NAME and isinstance(value, dict):
            value = message_of(store, detail, value, ros1=ros1)
        elif node in (Nodetype.SEQUENCE, Nodetype.ARRAY) and detail[0][0] == Nodetype.NAME:
            value = [message_of(store, detail[0][1], each, ros1=ros1) for each in value]
        values[field] = value
    return store.types[name](**values)


def _namespace(fields: Any) -> Any:
    """Nested dicts -> what the writer of MCAP takes."""
    if isinstance(fields, dict):
        return SimpleNamespace(**{key: _namespace(value) for key, value in fields.items()})
    if isinstance(fields, list):
        return [_namespace(value) for value in fields]
    if isinstance(fields, np.ndarray):
        return fields.tobytes() if fields.dtype == np.uint8 else fields.tolist()
    return fields


def rvl(depth: NDArray[np.uint16]) -> bytes:
    """The reference encoder of the paper, pixel by pixel."""
    nibbles: list[int] = []

    def put(number: int) -> None:
        while True:
            number, low = number >> 3, number & 7
            nibbles.append(low | 8 if number else low)
            if not number:
                return

    stored, at, previous = depth.reshape(-1).astype(int).tolist(), 0, 0
    while at < len(stored):
        start = at
        while at < len(stored) and not stored[at]:
            at += 1
        put(at - start)
        end = at
        while end < len(stored) and stored[end]:
            end += 1
        put(end - at)
        for value in stored[at:end]:
            delta, previous = value - previous, value
            put(2 * delta if delta >= 0 else -2 * delta - 1)
        at = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(nibble << (28 - 4 * place) for place, nibble in enumerate(nibbles[first : first + 8]))
        for first in range(0, len(nibbles), 8)
    ]
    return np.array(words, "<u4").tobytes()
