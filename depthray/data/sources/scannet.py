"""ScanNet: scans as they are downloaded, `.sens`. Depth is registered to colour; scans of one room are one scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.recordings.containers.scannet_streams import ScannetStream
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import has_files

if TYPE_CHECKING:
    from depthray.config.sections import Data

SUFFIX = ".sens"
RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The scan, or the scans in the folder, at `section.root`."""
    return RecordedFrames.of_files(section, SUFFIX, ScannetStream)


def fits(root: Path) -> bool:
    """Whether the path is a scan, or a folder with one at most two levels down."""
    return has_files(root, SUFFIX)
