"""Middlebury stereo 2014: SCENE/im0.png, SCENE/disp0.pfm (disparity, infinite where unmeasured), SCENE/calib.txt.

Depth is baseline * focal length / (disparity + doffs), of the left camera. A scene is a folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.readers.files import Pixels, data_root, pinhole, read_text
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

ENCODING = "float32 disparity in pixels"  # of this form alone
STORED = "uint16_mm"
KEYS = frozenset({"image", "depth", "intrinsics"})
ROLES = ("image", "depth", "calib")
NUMBER = r"(-?[\d.eE+-]+)"


class StereoCalibration(NamedTuple):
    """The left camera, and what disparity means."""

    fx: float
    fy: float
    cx: float
    cy: float
    offset: float  # pixels
    baseline: float  # millimetres


def open_source(section: Data) -> Middlebury:
    """The scenes under `section.root`, which may be one of them."""
    refuse_encoding(section)
    root = data_root(section)
    folders = sorted(path.parent for path in root.rglob("disp0.pfm") if (path.parent / "calib.txt").is_file())
    if not folders:
        raise DataError(f"{root}: no SCENE/disp0.pfm with calib.txt, as Middlebury 2014 has them")
    rows = []
    for folder in folders:
        name = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        scene = folder.resolve().name.removesuffix("-perfect").removesuffix("-imperfect")  # of one scene both
        frame = Frame(f"{name}im0", scene, split="", source="middlebury")
        rows.append(FrameRow(frame, tuple(f"{name}{file}" for file in ("im0.png", "disp0.pfm", "calib.txt"))))
    return Middlebury(root, rows, roles=ROLES, keys=KEYS & keys_to_read(section), encoding=ENCODING)


def fits(root: Path) -> bool:
    """Whether there is a scene, at most two levels down."""
    return any(any(root.glob(f"{level}disp0.pfm")) for level in ("", "*/", "*/*/"))


class Middlebury(FrameFiles):
    """A data set of stereo pairs, of which the left image is read. See `depthray.data.source.Source`."""

    fingerprint_tag = "Middlebury"

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        lens = read_calibration(self.path(index, "calib"))
        arrays = {**super().arrays(index), "intrinsics": pinhole(lens.fx, lens.fy, lens.cx, lens.cy)}
        return {key: array for key, array in arrays.items() if key in self.keys}

    def metres(self, index: int, stored: Pixels) -> NDArray[np.float32]:
        """Frame, its disparity -> (H,W) float32 metres, 0 where unmeasured."""
        where, lens = str(self.path(index, "depth")), read_calibration(self.path(index, "calib"))
        disparity = encodings.decode(stored, "float_m", where=where).astype(np.float64)  # 0 where infinite
        measured = (disparity > 0) & (disparity + lens.offset > 0)
        metres = np.zeros(disparity.shape)
        np.divide(lens.baseline * lens.fx / 1000, disparity + lens.offset, out=metres, where=measured)
        return metres.astype(np.float32)


def read_calibration(path: Path) -> StereoCalibration:
    """A calib.txt -> the calibration; a DataError where a line is missing."""
    text = read_text(path)
    matrix = re.search(rf"cam0=\[{NUMBER} 0 {NUMBER}; 0 {NUMBER} {NUMBER}; 0 0 1\]", text)
    others = [re.search(rf"^{name}={NUMBER}\s*$", text, re.MULTILINE) for name in ("doffs", "baseline")]
    try:
        fx, cx, fy, cy = (float(part) for part in matrix.groups())  # type: ignore[union-attr]
        offset, baseline = (float(each[1]) for each in others)  # type: ignore[index]
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{path}: wanted lines cam0=[f 0 cx; 0 f cy; 0 0 1], doffs= and baseline=") from None
    return StereoCalibration(fx, fy, cx, cy, offset, baseline)
