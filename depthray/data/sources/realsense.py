"""Bags that librealsense recorded, by the name of who records them: `rosbag` reads and recognises them as well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.recordings.containers.realsense_bags import RealsenseFile
from depthray.data.recordings.recorded_frames import RecordedFrames

if TYPE_CHECKING:
    from depthray.config.sections import Data

RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The bag, or the bags in the folder, at `section.root`."""
    return RecordedFrames.of_files(section, ".bag", RealsenseFile)


def fits(root: Path) -> bool:
    """Never: `rosbag` recognises them."""
    return False
