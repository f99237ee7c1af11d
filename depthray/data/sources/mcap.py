"""MCAP files with messages of ROS 1 or 2: a file, or a folder of them.

Read by the library mcap (`depthray[recordings]`).
A folder that ROS 2 recorded, which has metadata.yaml, may be read as `rosbag2` too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.recordings.containers.mcap_files import McapFile
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import has_files

if TYPE_CHECKING:
    from depthray.config.sections import Data

SUFFIX = ".mcap"
RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The file, or the files in the folder, at `section.root`."""
    return RecordedFrames.of_files(section, SUFFIX, McapFile)


def fits(root: Path) -> bool:
    """Whether the path is an MCAP file, or a folder with one at most two levels down."""
    return has_files(root, SUFFIX)
