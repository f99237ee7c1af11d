"""iBims-1: rgb/NAME.png, depth/NAME.png (50 m is 65535), calib/NAME.txt, and masks of what is not to be scored.

Pixels outside of `mask_invalid` are unmeasured, and so is glass by `mask_transp`, where there is no depth to measure
either. All frames are `test`: this is a benchmark, in which each image shows a place of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data.readers.files import data_root, pinhole, read_text
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import MEASURABLE, NO, YES, Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

ENCODING = "uint16*50/65535"
KEYS = frozenset({"image", "depth", "intrinsics", MEASURABLE})
ROLES = ("image", "depth", "calib", "mask_invalid", "mask_transp")


def open_source(section: Data) -> Ibims:
    """The data set at `section.root`, the folder `ibims1_core_raw`."""
    refuse_encoding(section)
    root = data_root(section)
    names = sorted(path.stem for path in (root / "rgb").glob("*.png"))
    if not names:
        raise DataError(f"{root}: no rgb/*.png, as iBims-1 has them")
    rows = [FrameRow(Frame(name, name, split="test", source="ibims"), _files(name)) for name in names]
    return Ibims(root, rows, roles=ROLES, keys=KEYS & keys_to_read(section), encoding=ENCODING)


def fits(root: Path) -> bool:
    """Whether there are the masks that no other data set has."""
    return (root / "mask_invalid").is_dir() and (root / "rgb").is_dir() and (root / "calib").is_dir()


class Ibims(FrameFiles):
    """A data set of a benchmark. See `depthray.data.source.Source`."""

    fingerprint_tag = "Ibims"

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        path = self.path(index, "calib")
        try:
            fx, fy, cx, cy = (float(part) for part in read_text(path).replace(",", " ").split())
        except ValueError:
            raise DataError(f"{path}: wanted fx, fy, cx and cy") from None
        image = self.files.colour(self.file(index, "image"))
        depth, is_glass = self.metres_and_glass(index)
        measurable = np.where(is_glass, NO, np.where(depth > 0, YES, 0)).astype(np.uint8)
        arrays = {"image": image, "depth": depth, MEASURABLE: measurable, "intrinsics": pinhole(fx, fy, cx, cy)}
        return {key: array for key, array in arrays.items() if key in self.keys}

    def depth(self, index: int) -> NDArray[np.float32]:
        """Frame -> (H,W) float32 metres, 0 where unmeasured or masked."""
        return self.metres_and_glass(index)[0]

    def metres_and_glass(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Frame -> (H,W) float32 metres, 0 where unmeasured or masked, and where there is glass"""
        depth = super().depth(index)
        masked = []
        for role in ("mask_invalid", "mask_transp"):
            mask = self.files.load(self.file(index, role))
            if mask.shape[:2] != depth.shape:
                raise DataError(f"{self.path(index, role)}: another size than depth")
            masked.append((mask if mask.ndim == 2 else mask[..., 0]) == 0)
        return np.where(masked[0] | masked[1], np.float32(0), depth), masked[1]


def _files(name: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.{'txt' if folder == 'calib' else 'png'}" for folder in ("rgb", *ROLES[1:]))
