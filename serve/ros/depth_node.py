"""The node: the newest image of a topic -> depth, its camera, and points where they are asked for."""

from __future__ import annotations

from typing import Any

from depthray.errors import DepthrayError
from serve.ros import depth_messages, node_settings
from serve.ros.estimators import Estimator
from serve.ros.node_settings import NodeSettings
from serve.ros.ros_interface import RosInterface

SECOND = 10**9  # nanoseconds
AGAIN = 30 * SECOND  # until the same fault is logged again
FAULTS = 20  # different ones that are remembered


def read_settings(node: Any, ros: RosInterface, *, model: str) -> NodeSettings:
    """Declare the node's parameters and read them; `model` is that of the command line, "" where it has none."""
    values = {}
    for name, field in NodeSettings.model_fields.items():
        default = model if name == "model" else field.default
        # Else rclpy would refuse rate:=5, which YAML reads as a whole number.
        about = ros.ParameterDescriptor(description=field.description or "", dynamic_typing=True)
        node.declare_parameter(name, default, about)
        values[name] = node.get_parameter(name).value
    return node_settings.check(values)


class DepthNode:
    """Depth of the images that a node of rclpy receives.

    An image is predicted within its callback. Those that come meanwhile wait in a queue of one, of which the middleware
    keeps the newest: however slow the network is, no backlog grows.
    """

    def __init__(self, node: Any, ros: RosInterface, estimate: Estimator, settings: NodeSettings) -> None:
        self._node, self._ros, self._estimate, self._settings = node, ros, estimate, settings
        self._compressed = settings.transport == "compressed"
        self._camera: Any = None  # the newest camera_info
        self._due = 0  # nanoseconds of the node's clock from which on the next image is predicted
        self._faults: dict[str, int] = {}  # when each was last logged
        # Sensors publish as best they can, and a subscription that asks for more gets nothing of them. What is
        # published reliably reaches subscriptions of either kind.
        newest, offered = self._quality("BEST_EFFORT"), self._quality("RELIABLE")
        self._depth = node.create_publisher(ros.Image, "depth/image", offered)
        self._info = node.create_publisher(ros.CameraInfo, "depth/camera_info", offered)
        self._points = node.create_publisher(ros.PointCloud2, "depth/points", offered) if settings.points else None
        kind = ros.CompressedImage if self._compressed else ros.Image
        topic = "image/compressed" if self._compressed else "image"
        node.create_subscription(ros.CameraInfo, "camera_info", self.on_camera, newest)
        self._subscription = node.create_subscription(kind, topic, self.on_image, newest)

    def _quality(self, reliability: str) -> Any:
        history = self._ros.HistoryPolicy.KEEP_LAST
        return self._ros.QoSProfile(
            history=history, depth=1, reliability=getattr(self._ros.ReliabilityPolicy, reliability)
        )

    def on_camera(self, message: Any) -> None:
        """Keep the camera of the images to come."""
        self._camera = message

    def on_image(self, message: Any) -> None:
        """Publish depth of an image, unless it comes too soon; what is wrong is logged, and the next one awaited."""
        if not self._is_due():
            return
        try:
            self._predict(message)
        except DepthrayError as error:
            self._log_fault(str(error))
        except Exception as error:  # a robot's node goes on, whatever one image led to
            self._log_fault(f"unexpected {type(error).__name__}: {error}")

    def _predict(self, message: Any) -> None:
        where = getattr(self._subscription, "topic_name", "image")
        rgb = depth_messages.read_rgb(message, compressed=self._compressed, where=where)
        depth = self._estimate(rgb)
        # The header of the image: its time, and the coordinate frame that depth is in as well.
        header, ros = message.header, self._ros
        self._depth.publish(depth_messages.depth_image(ros, header, depth, self._settings.depth_encoding))
        if self._camera is None:
            if self._points is not None:
                self._log_fault("no points as long as there is no camera_info; remap camera_info to its topic")
            return
        height, width = depth.shape
        camera = depth_messages.scale_camera(self._camera, (height, width))
        self._info.publish(depth_messages.camera_info(ros, header, camera, self._camera.r))
        if self._points is not None:
            rectified = self._settings.rectified
            self._points.publish(depth_messages.point_cloud(ros, header, depth, rgb, camera, rectified=rectified))

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _is_due(self) -> bool:
        """Whether an image that comes now is predicted, by the rate at most."""
        if not self._settings.rate:
            return True
        period = round(SECOND / self._settings.rate)
        now = self._now()
        late = now - self._due
        if -period <= late < 0:  # further ahead, the clock went back, as that of a simulation does
            return False
        # By the time that was due, so that images that come a little late do not lower the rate.
        self._due = self._due + period if 0 <= late < period else now + period
        return True

    def _log_fault(self, text: str) -> None:
        """Log a fault, the same one at most every 30 seconds."""
        now = self._now()
        if text in self._faults and 0 <= now - self._faults[text] < AGAIN:
            return
        if len(self._faults) >= FAULTS:
            self._faults.clear()
        self._faults[text] = now
        self._node.get_logger().error(text)
