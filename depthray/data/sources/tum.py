"""TUM RGB-D: sequences with rgb.txt and depth.txt, each a recording. Depth is 1/5000 m, registered to colour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.readers.files import data_root
from depthray.data.recordings.containers.tum_sequences import TumSequence, find_sequences
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.recordings.recording import name_in

if TYPE_CHECKING:
    from depthray.config.sections import Data

RECORDED = True


def open_source(section: Data) -> RecordedFrames:
    """The sequences under `section.root`, which may be one of them."""
    root = data_root(section)
    return RecordedFrames(root, [TumSequence(path, name_in(root, path)) for path in find_sequences(root)], section)


def fits(root: Path) -> bool:
    """Whether there is a sequence, at most one level down."""
    return any(any(root.glob(f"{level}rgb.txt")) and any(root.glob(f"{level}depth.txt")) for level in ("", "*/"))
