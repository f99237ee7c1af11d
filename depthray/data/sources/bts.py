"""NYU Depth V2 as distributed by BTS, and other data with its lists: `rgb depth focal` a line, in a .txt file.

The lists are in the root, named as in BTS, `nyudepthv2_train_files_with_gt.txt`, or otherwise: `train`, `val` or `test`
in the name declares the side. File names are relative to the root or to the folder of that part in it, and may begin
with a slash. Depth is 16-bit millimetres. Scenes are folders; in the official test list those are types of room, not
rooms. Lines whose depth is `None` are left out.

Of the camera, a list states one focal length. Where it is that of NYU's camera the rest is known too; otherwise pixels
are assumed to be square and the optical axis to be in the middle of the image.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data.readers import kinect
from depthray.data.readers.files import data_root, pinhole, read_text
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, refuse_encoding
from depthray.data.split import SIDES
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

ENCODING = "uint16_mm"
KEYS = frozenset({"image", "depth", "intrinsics"})
NONE = "None"  # in place of a name, where a frame has no depth
LINE = re.compile(rf"\S+\.(?:jpe?g|png)\s+(?:\S+\.png|{NONE})\s+\d+(?:\.\d*)?\s*", re.IGNORECASE)
KITTI = "proj_depth/"  # in the depth names of BTS's lists of KITTI, which have another unit
BASES = ("", "sync", "official_splits/train", "official_splits/test", "train", "test")


def open_source(section: Data) -> Bts:
    """The lists in the folder at `section.root`, or that list itself."""
    refuse_encoding(section)
    root = data_root(section)
    lists = [root] if root.is_file() else _lists(root)
    if not lists:
        raise DataError(f"{root}: no .txt file there with lines `rgb depth focal`; copy BTS's lists to it")
    return Bts(lists)


def fits(root: Path) -> bool:
    """Whether the folder has a list of this form, or the path is one."""
    return bool(_lists(root)) or (root.is_file() and root.suffix == ".txt" and _is_list(root))


class Bts(FrameFiles):
    """A data set of lists. See `depthray.data.source.Source`."""

    fingerprint_tag = "Bts"

    def __init__(self, lists: list[Path]) -> None:
        rows, notes = [], []
        for path in lists:
            lines = _read(path)
            pairs = [(number, fields) for number, fields in lines if fields[1] != NONE]
            # List by list: BTS keeps training and test files in different folders.
            base = _base(path.parent, pairs[0][1][0]) if pairs else ""
            rows += [_row(fields, path, number=number, base=base) for number, fields in pairs]
            if len(pairs) < len(lines):
                notes.append(f"{path}: {len(lines) - len(pairs)} lines left out, whose depth is {NONE}")
        super().__init__(lists[0].parent, rows, keys=KEYS, encoding=ENCODING, notes=notes)

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        arrays = super().arrays(index)
        (focal,) = self.rows[index].camera
        return {**arrays, "intrinsics": _camera(float(focal), arrays["image"].shape[:2])}


def _camera(focal: float, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Focal length in pixels, (H,W) -> (3,3) float32 pinhole matrix."""
    # Lists round the focal length to four places.
    if tuple(size) == kinect.NATIVE and math.isclose(focal, kinect.COLOUR.fx, abs_tol=1e-3):
        return kinect.COLOUR.matrix(size)
    # Pixel centres are at whole numbers, so the middle of an image is at (side - 1) / 2.
    return pinhole(focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2)


def _lists(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("*.txt")) if _is_list(path)]


def _is_list(path: Path) -> bool:
    """Whether the first line with depth is of this form and not KITTI's."""
    try:
        # A text file that is not UTF-8 is no error here, only no list.
        with path.open(encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if f" {NONE} " not in line and line.strip()), "")
    except OSError:
        return False
    return LINE.fullmatch(line) is not None and KITTI not in line


def _read(path: Path) -> list[tuple[int, list[str]]]:
    """A list -> number and three fields of each line"""
    text = read_text(path, kind="list")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in lines:
        if LINE.fullmatch(line) is None or float(line.split()[2]) <= 0:
            raise DataError(
                f"{path}: line {number} must be `rgb depth focal`, names of images and pixels, is '{line[:80]}'"
            )
        # The two lists look alike, and the wrong unit would be off by a factor of four without any error.
        if KITTI in line:
            raise DataError(f"{path}: line {number} is of a list of KITTI, whose depth is in 1/256 m, not millimetres")
    return [(number, line.split()) for number, line in lines]


def _base(root: Path, name: str) -> str:
    """The folder in the root that the names of a list are relative to: the first one that has its first file."""
    return next((base for base in BASES if (root / base / name.lstrip("/")).is_file()), "")


def _row(fields: list[str], path: Path, *, number: int, base: str) -> FrameRow:
    rgb, depth = (str(PurePosixPath(base) / field.lstrip("/")) for field in fields[:2])
    name = PurePosixPath(fields[0].lstrip("/")).with_suffix("")
    split = next((side for side in SIDES if side in path.name), "")
    frame = Frame(str(name), kinect.room_of(name.parent.name), split=split, source=path.stem)
    return FrameRow(frame, (rgb, depth), named=f"{path.name} line {number}", camera=(fields[2],))
