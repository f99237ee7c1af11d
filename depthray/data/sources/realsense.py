"""Bags that librealsense recorded, by the name of who records them: `rosbag` reads and recognises them as well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.readers.files import data_root
from depthray.data.recordings.containers.realsense_bags import RealsenseFile
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import find_files, name_in

if TYPE_CHECKING:
    from depthray.config.sections import Data


def open_source(section: Data) -> RecordedFrames:
    """The bag, or the bags in the folder, at `section.root`."""
    root = data_root(section)
    return RecordedFrames(
        root, [RealsenseFile(path, name_in(root, path)) for path in find_files(root, ".bag")], section
    )


def fits(root: Path) -> bool:
    """Never: `rosbag` recognises them."""
    return False
