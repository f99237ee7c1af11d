"""What is used of ROS 2: rclpy and types of messages, imported when a node starts and nowhere else."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from depthray.errors import UsageError

INSTALL = (
    "the node needs ROS 2, which pip does not install: `source /opt/ros/DISTRIBUTION/setup.bash` first, and use the "
    "Python that it was built for"
)


class RosInterface(NamedTuple):
    """rclpy and the classes that the node uses, each as ROS 2 has it."""

    rclpy: Any
    Image: Any  # of sensor_msgs.msg
    CompressedImage: Any
    CameraInfo: Any
    PointCloud2: Any
    PointField: Any
    ParameterDescriptor: Any  # of rcl_interfaces.msg
    QoSProfile: Any  # of rclpy.qos
    HistoryPolicy: Any
    ReliabilityPolicy: Any
    ExternalShutdownException: type[Exception]  # of rclpy.executors


def import_ros() -> RosInterface:
    """Import ROS 2; a UsageError that says how to have it where it is not there."""
    try:
        sensor, qos = import_module("sensor_msgs.msg"), import_module("rclpy.qos")
        return RosInterface(
            rclpy=import_module("rclpy"),
            Image=sensor.Image,
            CompressedImage=sensor.CompressedImage,
            CameraInfo=sensor.CameraInfo,
            PointCloud2=sensor.PointCloud2,
            PointField=sensor.PointField,
            ParameterDescriptor=import_module("rcl_interfaces.msg").ParameterDescriptor,
            QoSProfile=qos.QoSProfile,
            HistoryPolicy=qos.HistoryPolicy,
            ReliabilityPolicy=qos.ReliabilityPolicy,
            ExternalShutdownException=import_module("rclpy.executors").ExternalShutdownException,
        )
    except ImportError as error:
        raise UsageError(f"{INSTALL} ({error})") from None
