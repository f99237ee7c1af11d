"""DIODE: [train|val]/indoors|outdoor/scene_*/scan_*/NAME.png, NAME_depth.npy and NAME_depth_mask.npy.

Depth is (H,W,1) float32 metres, valid only where the mask is not 0. Root may be the folder of one side; the side is
then not declared, and scenes are held out as for other sets without a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data.readers.files import data_root, pinhole
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import DataTerms, Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

TERMS = {"diode-indoors": DataTerms("indoors", "MIT"), "diode-outdoor": DataTerms("outdoors", "MIT")}
ENCODING = "float_m"
STORED = "uint16_256"  # in shards: outdoors reaches far beyond the 65 m that 16 bits of millimetres hold
LOCATIONS = ("indoors", "outdoor")
SIDES = ("train", "val", "test")
KEYS = frozenset({"image", "depth", "intrinsics"})
ROLES = ("image", "depth", "valid")
# Both as in the devkit's intrinsics.txt.
SIZE = (768, 1024)
PINHOLE = (886.81, 927.06, 512.0, 384.0)  # fx, fy, cx, cy in pixels at SIZE


def open_source(section: Data) -> Diode:
    """The data set, or one side of it, at `section.root`."""
    refuse_encoding(section)
    root = data_root(section)
    rows = list(_rows(root))
    if not rows:
        raise DataError(f"{root}: no [train|val]/indoors|outdoor/scene_*/scan_*/*.png there, as DIODE has them")
    return Diode(root, rows, roles=ROLES, keys=KEYS & keys_to_read(section), encoding=ENCODING)


def fits(root: Path) -> bool:
    """Whether the folder has scenes of DIODE."""
    return any(any((root / side / location).glob("scene_*")) for side in ("", *SIDES) for location in LOCATIONS)


class Diode(FrameFiles):
    """A data set of scans. See `depthray.data.source.Source`."""

    fingerprint_tag = "Diode"

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        arrays = super().arrays(index)
        if "intrinsics" in self.keys:
            down, across = (side / full for side, full in zip(arrays["image"].shape[:2], SIZE, strict=True))
            fx, fy, cx, cy = PINHOLE  # in proportion, for copies of the set at another size
            arrays["intrinsics"] = pinhole(fx * across, fy * down, cx * across, cy * down)
        return arrays

    def depth(self, index: int) -> NDArray[np.float32]:
        """Frame -> (H,W) float32 metres, 0 where the mask is 0"""
        depth, mask = super().depth(index), self.files.load(self.file(index, "valid"))
        # Depth has lost its channel axis by now, a mask may still have one.
        if mask.shape[:2] != depth.shape or mask.size != depth.size:
            where = self.path(index, "valid")
            raise DataError(f"{where}: has shape {mask.shape}, but its depth {depth.shape}")
        return np.where(mask.reshape(depth.shape) > 0, depth, np.float32(0))


def _rows(root: Path) -> Iterator[FrameRow]:
    for side in ("", *SIDES):
        for location in LOCATIONS:
            for image in sorted((root / side / location).glob("scene_*/scan_*/*.png")):
                name = str(image.relative_to(root).with_suffix(""))
                scene = f"{location}/{image.parents[1].name}"
                files = (f"{name}.png", f"{name}_depth.npy", f"{name}_depth_mask.npy")
                yield FrameRow(
                    Frame(f"{scene}/{image.parent.name}/{image.stem}", scene, side, f"diode-{location}"), files
                )
