"""Bags of ROS 2: a folder with metadata.yaml and SQLite or MCAP files, or a folder of such, or a .db3 file alone.

Read without ROS, by the library rosbags (`depthray[recordings]`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.readers.files import data_root
from depthray.data.recordings import ros_messages
from depthray.data.recordings.containers.rosbag_files import RosbagFile
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import find_files, name_in

if TYPE_CHECKING:
    from depthray.config.sections import Data

METADATA = "metadata.yaml"
SUFFIX = ".db3"
RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The bag, or the bags in the folder, at `section.root`."""
    root = data_root(section)
    files = [RosbagFile(path, name_in(root, path), serialised=ros_messages.ROS2) for path in _bags(root)]
    return RecordedFrames(root, files, section)


def fits(root: Path) -> bool:
    """Whether the path is a bag, or a folder with one at most two levels down."""
    if root.is_file():
        return root.suffix == SUFFIX
    below = ("", "*/", "*/*/")
    return any(any(root.glob(f"{level}{name}")) for level in below for name in (METADATA, f"*{SUFFIX}"))


def _bags(root: Path) -> list[Path]:
    """The folders with metadata, and the files without, as of a recorder that was killed before it wrote any."""
    if root.is_file():
        return [root]
    folders = sorted(path.parent for path in root.rglob(METADATA))
    alone = [path for path in find_files(root, SUFFIX) if path.parent not in folders]
    return sorted([*folders, *alone])
