"""MCAP files with messages of ROS 1 or 2: a file, or a folder of them.

Read by the library mcap (`depthray[recordings]`).
A folder that ROS 2 recorded, which has metadata.yaml, may be read as `rosbag2` too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.readers.files import data_root
from depthray.data.recordings.containers.mcap_files import McapFile
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import find_files, has_files, name_in

if TYPE_CHECKING:
    from depthray.config.sections import Data

SUFFIX = ".mcap"


def open_source(section: Data) -> RecordedFrames:
    """The file, or the files in the folder, at `section.root`."""
    root = data_root(section)
    return RecordedFrames(root, [McapFile(path, name_in(root, path)) for path in find_files(root, SUFFIX)], section)


def fits(root: Path) -> bool:
    """Whether the path is an MCAP file, or a folder with one at most two levels down."""
    return has_files(root, SUFFIX)
