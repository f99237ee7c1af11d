"""A stub of the parts of rclpy and of ROS's messages that the node uses, as strict about types as the real ones."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import rosbags.rosbag2
from recorded import Recorded, message_of
from rosbags.typesys import Stores, get_typestore

from serve.ros.ros_interface import RosInterface

STORE = get_typestore(Stores.ROS2_HUMBLE)


class Strict:
    """A message: unknown fields and other types than those declared are refused, as the setters of rclpy do."""

    known: ClassVar[dict[str, Any]] = {}

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self.known, f"{type(self).__name__} has no field {name}"
        kind = self.known[name]
        if kind == "bytes":
            assert isinstance(value, array) and value.typecode == "B", f"{name}: rclpy would check each number"
        elif isinstance(kind, tuple):
            inner, count = kind
            assert isinstance(value, list) and all(type(each) is inner for each in value), name
            assert count in (None, len(value)), f"{name} has {len(value)} numbers"
        elif kind is not None:
            assert type(value) is kind, f"{name} is a {kind.__name__}, not {type(value).__name__}"
        object.__setattr__(self, name, value)


class Image(Strict):
    known: ClassVar[dict[str, Any]] = {
        **{"header": None, "height": int, "width": int, "encoding": str, "is_bigendian": int, "step": int},
        "data": "bytes",
    }


class CompressedImage(Strict):
    known: ClassVar[dict[str, Any]] = {"header": None, "format": str, "data": "bytes"}


class PointField(Strict):
    known: ClassVar[dict[str, Any]] = {"name": str, "offset": int, "datatype": int, "count": int}


class PointCloud2(Strict):
    known: ClassVar[dict[str, Any]] = {
        **{"header": None, "height": int, "width": int, "fields": (PointField, None), "is_bigendian": bool},
        **{"point_step": int, "row_step": int, "data": "bytes", "is_dense": bool},
    }


class CameraInfo(Strict):
    known: ClassVar[dict[str, Any]] = {
        **{"header": None, "height": int, "width": int, "distortion_model": str, "d": (float, None), "k": (float, 9)},
        **{"r": (float, 9), "p": (float, 12), "binning_x": int, "binning_y": int, "roi": None},
    }


TYPES = {f"sensor_msgs/msg/{kind.__name__}": kind for kind in (Image, CompressedImage, CameraInfo)}


class StubPublisher:
    def __init__(self, kind: type, quality: Any) -> None:
        self.kind, self.quality = kind, quality
        self.sent: list[Any] = []

    def publish(self, message: Any) -> None:
        assert type(message) is self.kind
        self.sent.append(message)


class StubSubscription:
    """The queue that the middleware keeps for a subscription: of more messages than its depth the newest."""

    def __init__(self, kind: type, topic: str, callback: Callable[[Any], None], quality: Any) -> None:
        self.kind, self.topic_name, self.callback, self.quality = kind, f"/{topic}", callback, quality
        self.waiting: deque[Any] = deque(maxlen=quality.depth)


class StubNode:
    """A node whose clock, parameters and messages a test gives."""

    def __init__(self, **parameters: Any) -> None:
        self.given = parameters
        self.declared: dict[str, Any] = {}
        self.publishers: dict[str, StubPublisher] = {}
        self.subscriptions: dict[str, StubSubscription] = {}
        self.nanoseconds = 10**12
        self.errors: list[str] = []
        self.infos: list[str] = []
        self.is_destroyed = False

    def declare_parameter(self, name: str, value: Any, descriptor: Any) -> None:
        assert descriptor.dynamic_typing or name not in self.given or type(self.given[name]) is type(value), name
        self.declared[name] = self.given.get(name, value)

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=self.declared[name])

    def create_publisher(self, kind: type, topic: str, quality: Any) -> StubPublisher:
        self.publishers[topic] = StubPublisher(kind, quality)
        return self.publishers[topic]

    def create_subscription(self, kind: type, topic: str, callback: Any, quality: Any) -> StubSubscription:
        self.subscriptions[topic] = StubSubscription(kind, topic, callback, quality)
        return self.subscriptions[topic]

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.nanoseconds))

    def get_logger(self) -> Any:
        return SimpleNamespace(error=self.errors.append, info=self.infos.append)

    def destroy_node(self) -> None:
        self.is_destroyed = True

    def arrive(self, topic: str, *messages: Any) -> None:
        """Messages come to a topic, faster than the node spins."""
        subscription = self.subscriptions[topic]
        assert all(type(message) is subscription.kind for message in messages)
        subscription.waiting.extend(messages)

    def spin(self) -> None:
        """Call back what waits."""
        for subscription in self.subscriptions.values():
            while subscription.waiting:
                subscription.callback(subscription.waiting.popleft())

    def sent(self, topic: str) -> list[Any]:
        return self.publishers[topic].sent


class ShutdownException(Exception):
    """rclpy's ExternalShutdownException."""


def interface(node: StubNode | None = None, script: Callable[[StubNode], None] = StubNode.spin) -> RosInterface:
    """What `import_ros` gives; spinning the node runs the script."""
    calls: list[Any] = []

    def create_node(name: str) -> Any:
        calls.append(("node", name))
        return node

    rclpy = SimpleNamespace(
        calls=calls,
        init=lambda args: calls.append(("init", args)),
        create_node=create_node,
        spin=lambda node: script(node),
        try_shutdown=lambda: calls.append("shutdown"),
    )
    return RosInterface(
        rclpy=rclpy,
        Image=Image,
        CompressedImage=CompressedImage,
        CameraInfo=CameraInfo,
        PointCloud2=PointCloud2,
        PointField=PointField,
        ParameterDescriptor=SimpleNamespace,
        QoSProfile=SimpleNamespace,
        HistoryPolicy=SimpleNamespace(KEEP_LAST="keep last"),
        ReliabilityPolicy=SimpleNamespace(BEST_EFFORT="best effort", RELIABLE="reliable"),
        ExternalShutdownException=ShutdownException,
    )


def as_rclpy(message: Any, kind: str) -> Any:
    """A message of rosbags as rclpy gives it to a callback."""
    made = TYPES[kind]()
    for name in made.known:
        value = getattr(message, name)
        if made.known[name] == "bytes":
            value = array("B", value.tobytes())
        elif isinstance(made.known[name], tuple):
            value = value.tolist()
        setattr(made, name, value)
    return made


def built(recorded: Recorded) -> Any:
    """A message to write, as rclpy gives it to a callback."""
    return as_rclpy(message_of(STORE, recorded.type, recorded.fields, ros1=False), recorded.type)


def replay(path: Path) -> Iterable[tuple[str, Any]]:
    """The messages of a bag of ROS 2 in their order, each with its topic."""
    with rosbags.rosbag2.Reader(path) as reader:
        for connection, _, raw in reader.messages():
            yield connection.topic, as_rclpy(STORE.deserialize_cdr(raw, connection.msgtype), connection.msgtype)
