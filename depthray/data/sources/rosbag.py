"""Bags of ROS 1: a file, or a folder of them; those of librealsense too, which have units and transforms of their own.

Read without ROS, by the library rosbags (`depthray[recordings]`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.recordings.containers.realsense_bags import open_bag
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import has_files

if TYPE_CHECKING:
    from depthray.config.sections import Data

SUFFIX = ".bag"
RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The bag, or the bags in the folder, at `section.root`."""
    return RecordedFrames.of_files(section, SUFFIX, open_bag)


def fits(root: Path) -> bool:
    """Whether the path is a bag, or a folder with one at most two levels down."""
    return has_files(root, SUFFIX)
