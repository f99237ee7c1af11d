"""Sequences of TUM RGB-D: rgb.txt and depth.txt with the time in seconds and the name of each file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from depthray.data.readers.files import read_text
from depthray.data.recordings.containers.image_series import (
    COLOUR,
    DEPTH,
    FolderSeries,
    SeriesImage,
    pinhole_camera,
)
from depthray.data.recordings.messages import CameraMessage
from depthray.errors import DataError

SIZE = (480, 640)
LISTS = {COLOUR: "rgb.txt", DEPTH: "depth.txt"}
# The published calibrations of the three Kinects, which a sequence's name has; depth is registered to colour.
KINECTS = {
    "freiburg1": pinhole_camera(
        SIZE, (517.306408, 516.469215), (318.643040, 255.313989),
        distortion=(0.262383, -0.953104, -0.005358, 0.002628, 1.163314),
    ),
    "freiburg2": pinhole_camera(
        SIZE, (520.908620, 521.007327), (325.141442, 249.701764),
        distortion=(0.231222, -0.784899, -0.003257, -0.000105, 0.917205),
    ),
    "freiburg3": pinhole_camera(SIZE, (535.433105, 539.212524), (320.106653, 247.632132)),
}  # fmt: skip


class TumSequence(FolderSeries):
    """A sequence. See `Recording`."""

    depth_encoding = "uint16_5000"

    def __init__(self, path: Path, name: str) -> None:
        camera = next((known for kinect, known in KINECTS.items() if kinect in path.resolve().name), None)
        images = [image for topic, listed in LISTS.items() for image in _listed(path / listed, topic, camera)]
        super().__init__(path, name, sorted(images, key=lambda image: image.time), colour="png")


def find_sequences(root: Path) -> list[Path]:
    """The folders with both lists, the root or below it."""
    lists = sorted(root.rglob(LISTS[COLOUR]))
    return [path.parent for path in lists if (path.parent / LISTS[DEPTH]).is_file()]


def _listed(path: Path, topic: str, camera: CameraMessage | None) -> Iterator[SeriesImage]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"\s*(\d+)(?:\.(\d{1,9}))?\s+(\S+)\s*", line)
        if match is None:
            raise DataError(f"{path} line {number}: wanted a time in seconds and the name of a file")
        seconds, part, name = match.groups()
        # Not as a float, which has too few digits for a time since 1970.
        time = int(seconds) * 10**9 + int((part or "0").ljust(9, "0"))
        yield SeriesImage(topic, time, name, camera)
