"""NYU Depth V2 as distributed by sparse-to-dense and FastDepth: a small HDF5 file a frame, depth in float metres.

`train/<recording>/00001.h5` and `val/official/00001.h5`, each with `rgb` (3,H,W) uint8 and `depth` (H,W) float32.
`val/official` are the 654 frames of the official test set, so they are declared test frames, not validation frames.
The camera is the colour camera of NYU's Kinect.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthray.data.readers.files import Pixels, data_root
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.readers.hdf5 import read_datasets
from depthray.data.readers.kinect import COLOUR, room_of
from depthray.data.source import Frame, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

ENCODING = "float_m"
KEYS = frozenset({"image", "depth", "intrinsics"})
PARTS = ("train", "val")
FILES = "*/[0-9]*.h5"
OFFICIAL = "official"


def open_source(section: Data) -> S2d:
    """The folders `train` and `val` at `section.root`."""
    refuse_encoding(section)
    root = data_root(section)
    names = [path.relative_to(root) for part in PARTS for path in sorted((root / part).glob(FILES))]
    if not names:
        raise DataError(f"{root}: no train/<recording>/00001.h5 there, nor val/official/00001.h5")
    rows = [FrameRow(_frame(name), (str(name),)) for name in names]
    # One file a frame, which the role of depth stands for.
    return S2d(root, rows, roles=("depth",), keys=KEYS, encoding=ENCODING)


def fits(root: Path) -> bool:
    """Whether there is a file of a frame in the folder of a recording."""
    return any(any((root / part).glob(FILES)) for part in PARTS)


class S2d(FrameFiles):
    """A data set of one file a frame, with colour and depth in it. See `depthray.data.source.Source`."""

    fingerprint_tag = "S2d"

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        rgb, stored = self._datasets(index, "rgb", "depth")
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[0] != 3:
            raise DataError(f"{self.path(index, 'depth')}: rgb is {rgb.dtype} {rgb.shape}, wanted uint8 (3, H, W)")
        # Channels come first in the file; everything after expects (H,W,3) in one piece.
        image = np.ascontiguousarray(rgb.transpose(1, 2, 0))
        return {"image": image, "depth": self.metres(index, stored), "intrinsics": COLOUR.matrix(image.shape[:2])}

    def stored_depth(self, index: int) -> Pixels:
        """Frame -> (H,W) depth as stored, in metres"""
        return self._datasets(index, "depth")[0]

    def faults(self, index: int) -> list[str]:
        """Values of depth that are read as unmeasured although they are not 0."""
        return self.odd_depth(index)

    def _datasets(self, index: int, *names: str) -> list[Pixels]:
        return read_datasets(self.files.unchanged(self.file(index, "depth")), *names)


def _frame(name: Path) -> Frame:
    part, folder = name.parts[0], name.parent.name
    # Validating on it would tune on the frames that all published tables report.
    split = "test" if (part, folder) == ("val", OFFICIAL) else part
    return Frame(str(name.with_suffix("")), room_of(folder), split=split, source="s2d")
