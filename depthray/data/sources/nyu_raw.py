"""NYU Depth V2 as it was recorded: one folder a recording, with `r-<time>-<tick>.ppm` and `d-<time>-<tick>.pgm`.

Depth is byte-swapped 11-bit disparity, seen by another camera than colour: it is decoded, then registered to the colour
image, from which the lens distortion is removed. Each colour image is paired with the depth recorded nearest in time;
those without one within `LAG` are left out. INDEX.txt and the accelerometer's `a-*.dump` are not needed.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthray.data.readers import kinect
from depthray.data.readers.files import data_root
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

ENCODING = "kinect_disparity_be"
KEYS = frozenset({"image", "depth", "intrinsics"})
LAG = 0.1  # seconds; a hand-held camera moves
NAME = re.compile(r"[rd]-(\d+(?:\.\d+)?)-\d+\.(?:ppm|pgm)")


def open_source(section: Data) -> NyuRaw:
    """The recordings under `section.root`, which may be one of them."""
    refuse_encoding(section)
    return NyuRaw(data_root(section))


def fits(root: Path) -> bool:
    """Whether the folder has a recording, at most two levels down."""
    if any(root.glob("index*.pkl")):  # the pairs of such a folder are listed: see pickle_index
        return False
    return any(any(root.glob(f"{level}r-*.ppm")) and any(root.glob(f"{level}d-*.pgm")) for level in ("", "*/", "*/*/"))


class NyuRaw(FrameFiles):
    """A data set of recordings. See `depthray.data.source.Source`."""

    fingerprint_tag = "Raw"

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; recordings are folders with r-*.ppm and d-*.pgm")
        rows, late = [], 0
        for folder in _recordings(root):
            pairs, unpaired = _pair_up(root, folder)
            rows += pairs
            late += unpaired
        if not rows:
            raise DataError(f"{root}: no r-*.ppm with a d-*.pgm recorded within {LAG} s of it, in no folder there")
        notes = [f"{late} colour images left out: no depth within {LAG} s of them"] if late else []
        super().__init__(root, rows, keys=KEYS, encoding=ENCODING, notes=notes)

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key: depth registered to colour."""
        arrays = super().arrays(index)
        self.check_sizes(index, arrays)  # registration takes both images to be of one size
        return {
            "image": kinect.undistort(arrays["image"]),
            "depth": kinect.register(arrays["depth"]),
            "intrinsics": kinect.COLOUR.matrix(arrays["image"].shape[:2]),
        }


def _recordings(root: Path) -> Iterator[Path]:
    """The folders under the root that hold colour images, in the order of their names."""
    for folder, below, names in os.walk(root):
        below.sort()
        if any(name.startswith("r-") and name.endswith(".ppm") for name in names):
            yield Path(folder)


def _pair_up(root: Path, folder: Path) -> tuple[list[FrameRow], int]:
    """A recording -> its frames in the order of time, and the number of colour images without depth."""
    colours, depths = _list_by_time(folder, "r-*.ppm"), _list_by_time(folder, "d-*.pgm")
    times = [time for time, _ in depths]  # ascending, so that the nearest is found by bisection
    rows = []
    for time, rgb in colours:
        # Of the two depths around the time of the colour image, the nearer one.
        near = range(max(bisect_left(times, time) - 1, 0), min(bisect_left(times, time) + 1, len(times)))
        best = min(near, key=lambda index: abs(times[index] - time), default=None)
        if best is not None and abs(times[best] - time) <= LAG:
            rows.append(_row(root, rgb, depths[best][1]))
    return rows, len(colours) - len(rows)


def _row(root: Path, rgb: Path, depth: Path) -> FrameRow:
    name = rgb.relative_to(root)
    # The folder's own name, also where the root is itself a recording.
    frame = Frame(str(name.with_suffix("")), kinect.room_of(rgb.parent.resolve().name), split="", source="nyu")
    return FrameRow(frame, (str(name), str(depth.relative_to(root))), named=f"recording {rgb.parent.name}")


def _list_by_time(folder: Path, pattern: str) -> list[tuple[float, Path]]:
    """The files of one kind with the time in seconds at which each was recorded, in that order."""
    timed = []
    for path in folder.glob(pattern):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise DataError(
                f"{path}: no time in its name; recorded files are called like r-1294886360.208-2996770081.ppm"
            )
        timed.append((float(match[1]), path))
    return sorted(timed)
