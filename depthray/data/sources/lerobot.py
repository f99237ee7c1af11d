"""Data sets of LeRobot, versions 2.0 to 3.0: a folder with meta/info.json, Parquet files and videos.

An episode is a recording. Videos are read by the library av (`depthray[recordings]`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.readers.files import data_root
from depthray.data.recordings.containers.lerobot_episodes import open_episodes
from depthray.data.recordings.recorded_frames import RecordedFrames

if TYPE_CHECKING:
    from depthray.config.sections import Data

RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The episodes of the data set at `section.root`."""
    root = data_root(section)
    return RecordedFrames(root, open_episodes(root), section)


def fits(root: Path) -> bool:
    """Whether there is a description as LeRobot writes it."""
    return (root / "meta" / "info.json").is_file() and (root / "data").is_dir()
