"""Captures of the app Record3D, `.r3d`: a file, or a folder of them. Depth needs liblzfse (`depthray[recordings]`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.recordings.containers.record3d_archives import Record3dArchive
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import has_files

if TYPE_CHECKING:
    from depthray.config.sections import Data

SUFFIX = ".r3d"
RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The capture, or the captures in the folder, at `section.root`."""
    return RecordedFrames.of_files(section, SUFFIX, Record3dArchive)


def fits(root: Path) -> bool:
    """Whether the path is a capture, or a folder with one at most two levels down."""
    return has_files(root, SUFFIX)
