"""`depthray ros`: a ROS 2 node that publishes depth of a camera's images."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence

from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import UsageError
from serve.ros.depth_node import DepthNode, read_settings
from serve.ros.estimators import open_estimator
from serve.ros.node_settings import NodeSettings
from serve.ros.ros_interface import RosInterface, import_ros

MARK = "--ros-args"


def main(argv: list[str]) -> int:
    """Run the node until ROS or Ctrl-C ends it."""
    arguments = build_parser().parse_args(argv)
    ros = import_ros()
    _start(ros, arguments.ros_args)
    try:
        _run(ros, model=arguments.model)
    except (KeyboardInterrupt, ros.ExternalShutdownException):
        pass  # how a node ends
    finally:
        ros.rclpy.try_shutdown()
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray ros`."""
    parser = CommandParser(
        prog="depthray ros",
        description="A ROS 2 node: image and camera_info in, depth/image, depth/camera_info and depth/points out.",
        epilog=_parameters(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="depthray ros [MODEL] [--ros-args -r image:=/camera/image_raw -p NAME:=VALUE ...]",
    )
    parser.add_argument("model", nargs="?", default="", metavar="MODEL", help="a checkpoint, a run or an export")
    parser.add_argument(
        MARK,
        nargs=argparse.REMAINDER,
        default=[],
        help="what follows is ROS's: remapped topics, parameters, a namespace",
    )
    return parser


def _parameters() -> str:
    lines = ["parameters, after --ros-args as -p NAME:=VALUE, or of a launch file:"]
    for name, field in NodeSettings.model_fields.items():
        default = f" (default: {field.default})" if field.default not in ("", False) else ""
        lines += textwrap.wrap(
            f"{field.description}{default}", 76, initial_indent=f"  {name:<16}", subsequent_indent=18 * " "
        )
    return "\n".join(lines)


def _start(ros: RosInterface, arguments: Sequence[str]) -> None:
    try:
        ros.rclpy.init(args=[MARK, *arguments])
    except Exception as error:  # rclpy has an exception of its own for each fault
        raise UsageError(f"ROS refuses its arguments: {error}") from None


def _run(ros: RosInterface, *, model: str) -> None:
    node = ros.rclpy.create_node("depthray")
    try:
        settings = read_settings(node, ros, model=model)
        with open_estimator(settings) as estimate:
            DepthNode(node, ros, estimate, settings)
            node.get_logger().info(f"depth by {settings.server or settings.model}, as {settings.depth_encoding}")
            ros.rclpy.spin(node)
    finally:
        node.destroy_node()
