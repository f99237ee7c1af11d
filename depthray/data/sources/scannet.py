"""ScanNet: scans as they are downloaded, `.sens`. Depth is registered to colour; scans of one room are one scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.readers.files import data_root
from depthray.data.recordings.containers.scannet_streams import ScannetStream
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import find_files, has_files, name_in

if TYPE_CHECKING:
    from depthray.config.sections import Data

SUFFIX = ".sens"


def open_source(section: Data) -> RecordedFrames:
    """The scan, or the scans in the folder, at `section.root`."""
    root = data_root(section)
    return RecordedFrames(
        root, [ScannetStream(path, name_in(root, path)) for path in find_files(root, SUFFIX)], section
    )


def fits(root: Path) -> bool:
    """Whether the path is a scan, or a folder with one at most two levels down."""
    return has_files(root, SUFFIX)
