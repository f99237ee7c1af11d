"""The flags of the camera of photographs: `--intrinsics`, and the lens that it has."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from depthray.errors import UsageError

if TYPE_CHECKING:  # NumPy takes a while to import; --help does without
    from depthray.imaging.camera import Camera

USUAL = "brown-conrady"


def add_flags(parser: argparse.ArgumentParser, *, about: str) -> None:
    """Add the flags to a command's parser; `about` says what the camera is for."""
    parser.add_argument("--intrinsics", metavar="fx,fy,cx,cy", help=f"camera in pixels of the upright image, {about}")
    parser.add_argument(
        "--distortion",
        metavar="k1,k2,p1,p2,k3",
        help="with --intrinsics: the lens of images that are not undistorted, in OpenCV's order, for points in space",
    )
    parser.add_argument(
        "--camera-model",
        choices=("brown-conrady", "fisheye", "inverse-brown-conrady"),
        help=f"with --distortion: what its numbers are (default: {USUAL}; fisheye: k1,k2,k3,k4 of Kannala-Brandt)",
    )


def given(arguments: argparse.Namespace) -> Camera | None:
    """The camera that the command line gives. Raises UsageError for what is none."""
    from depthray.imaging.camera import read_camera
    from depthray.imaging.distortion import read_distortion

    camera = read_camera(arguments.intrinsics) if arguments.intrinsics else None
    if arguments.distortion:
        return read_distortion(arguments.distortion, arguments.camera_model or USUAL, camera)
    if arguments.camera_model:
        raise UsageError(f"--camera-model {arguments.camera_model} is of --distortion; give that too")
    return camera
