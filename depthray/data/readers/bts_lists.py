"""The lists of BTS, which others took over: `rgb depth focal` a line, names of images and a focal length in pixels.

There are those of NYU, whose depth is in millimetres, and those of KITTI's Eigen split, whose depth is in 1/256 m and
has `proj_depth/` in its name. A frame without depth has `None` in place of the name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from depthray.data.readers.files import read_text
from depthray.data.split import SIDES
from depthray.errors import DataError

NONE = "None"
LINE = re.compile(rf"\S+\.(?:jpe?g|png)\s+(?:\S+\.png|{NONE})\s+\d+(?:\.\d*)?\s*", re.IGNORECASE)
KITTI = "proj_depth/"


class ListedFrame(NamedTuple):
    """A line with depth."""

    number: int  # of the line, from 1
    rgb: str
    depth: str
    focal: str  # pixels


def find_lists(root: Path, *, kitti: bool) -> list[Path]:
    """The lists of KITTI, or of other data, in a folder; the path itself where it is one."""
    paths = sorted(root.glob("*.txt")) if root.is_dir() else [root] if root.suffix == ".txt" else []
    return [path for path in paths if _kind(path) == ("kitti" if kitti else "other")]


def read_list(path: Path, *, kitti: bool) -> tuple[list[ListedFrame], list[str]]:
    """A list -> its lines with depth, and a note on those without."""
    text = read_text(path, kind="list")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    frames = []
    for number, line in lines:
        if LINE.fullmatch(line) is None or float(line.split()[2]) <= 0:
            raise DataError(
                f"{path}: line {number} must be `rgb depth focal`, names of images and pixels, is '{line[:80]}'"
            )
        rgb, depth, focal = line.split()
        if depth != NONE:
            _refuse_other_unit(path, number, depth, kitti=kitti)
            frames.append(ListedFrame(number, rgb, depth, focal))
    left_out = len(lines) - len(frames)
    return frames, [f"{path}: {left_out} lines left out, whose depth is {NONE}"] if left_out else []


def side_of(path: Path, sides: Sequence[str] = SIDES) -> str:
    """The side that the name of a list declares; "" if none."""
    return next((side for side in sides if side in path.name), "")


def _refuse_other_unit(path: Path, number: int, depth: str, *, kitti: bool) -> None:
    # The two lists look alike, and the wrong unit would be off by a factor of four without any error.
    if kitti != (KITTI in depth):
        unit = "of KITTI, whose depth is in 1/256 m, not millimetres" if not kitti else "not of KITTI like the others"
        raise DataError(f"{path}: line {number} is of a list {unit}; make a list of each")


def _kind(path: Path) -> str:
    """Whether the first line with depth is of this form: kitti or other; "" if it is not."""
    try:
        # A text file that is not UTF-8 is no error here, only no list.
        with path.open(encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if f" {NONE} " not in line and line.strip()), "")
    except OSError:
        return ""
    if LINE.fullmatch(line) is None:
        return ""
    return "kitti" if KITTI in line else "other"
