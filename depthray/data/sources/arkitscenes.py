"""ARKitScenes, raw, 3dod or upsampling: a video is a recording, and the videos of a visit are one scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.readers.files import data_root
from depthray.data.recordings.containers.arkit_videos import ArkitVideo, find_videos, read_visits
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import name_in

if TYPE_CHECKING:
    from depthray.config.sections import Data

LEVELS = ("", "*/", "*/*/", "*/*/*/")
RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The videos under `section.root`, which may be one of them."""
    root = data_root(section)
    visits = read_visits(root)
    return RecordedFrames(
        root, [ArkitVideo(path, name_in(root, path), visits=visits) for path in find_videos(root)], section
    )


def fits(root: Path) -> bool:
    """Whether there are folders of a video, at most four levels down."""
    return any(
        any(root.glob(f"{level}*_wide_intrinsics")) or any(root.glob(f"{level}wide_intrinsics")) for level in LEVELS
    )
