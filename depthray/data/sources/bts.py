"""NYU Depth V2 as distributed by BTS, and other data with its lists: `rgb depth focal` a line, in a .txt file.

The lists are in the root, named as in BTS, `nyudepthv2_train_files_with_gt.txt`, or otherwise: `train`, `val` or `test`
in the name declares the side. File names are relative to the root or to the folder of that part in it, and may begin
with a slash. Depth is 16-bit millimetres. Scenes are folders; in the official test list those are types of room, not
rooms. Lines whose depth is `None` are left out. Lists of KITTI are read as by `kitti`, in their own unit.

Of the camera, a list states one focal length. Where it is that of NYU's camera the rest is known too; otherwise pixels
are assumed to be square and the optical axis to be in the middle of the image.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data.readers import kinect
from depthray.data.readers.bts_lists import ListedFrame, find_lists, read_list, side_of
from depthray.data.readers.files import data_root, pinhole
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, refuse_encoding
from depthray.data.sources import kitti
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

ENCODING = "uint16_mm"
KEYS = frozenset({"image", "depth", "intrinsics"})
BASES = ("", "sync", "official_splits/train", "official_splits/test", "train", "test")


def open_source(section: Data) -> Bts | kitti.Kitti:
    """The lists in the folder at `section.root`, or that list itself."""
    refuse_encoding(section)
    root = data_root(section)
    # A file that is named is read even where it does not begin as a list does: the error then names the line.
    lists = find_lists(root, kitti=False) or ([root] if root.is_file() else [])
    if find_lists(root, kitti=True) and lists in ([], [root]):
        return kitti.open_source(section)
    if not lists:
        raise DataError(f"{root}: no .txt file there with lines `rgb depth focal`; copy BTS's lists to it")
    return Bts(lists)


def fits(root: Path) -> bool:
    """Whether the folder has a list of this form that is not of KITTI, or the path is one."""
    return bool(find_lists(root, kitti=False))


class Bts(FrameFiles):
    """A data set of lists. See `depthray.data.source.Source`."""

    fingerprint_tag = "Bts"

    def __init__(self, lists: list[Path]) -> None:
        rows: list[FrameRow] = []
        notes: list[str] = []
        for path in lists:
            listed, left_out = read_list(path, kitti=False)
            # List by list: BTS keeps training and test files in different folders.
            base = _base(path.parent, listed[0].rgb) if listed else ""
            rows += [_row(line, path, base=base) for line in listed]
            notes += left_out
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


def _base(root: Path, name: str) -> str:
    """The folder in the root that the names of a list are relative to: the first one that has its first file."""
    return next((base for base in BASES if (root / base / name.lstrip("/")).is_file()), "")


def _row(line: ListedFrame, path: Path, *, base: str) -> FrameRow:
    rgb, depth = (str(PurePosixPath(base) / name.lstrip("/")) for name in (line.rgb, line.depth))
    name = PurePosixPath(line.rgb.lstrip("/")).with_suffix("")
    frame = Frame(str(name), kinect.room_of(name.parent.name), split=side_of(path), source=path.stem)
    return FrameRow(frame, (rgb, depth), named=f"{path.name} line {line.number}", camera=(line.focal,))
