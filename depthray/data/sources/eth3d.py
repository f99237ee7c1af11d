"""ETH3D, high-resolution multi-view, training: SCENE/images/dslr_images/NAME.JPG, SCENE/ground_truth_depth likewise.

Depth is float32 metres of a laser scan, of the pixels of the image as it was taken, without a header; infinite is
unmeasured. The lens distorts (SCENE/dslr_calibration_jpg/cameras.txt), which stays, so frames have no intrinsics.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthray.data.readers.files import Pixels, data_root
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

ENCODING = "float_m"
KEYS = frozenset({"image", "depth"})
IMAGES, DEPTHS = "images/dslr_images", "ground_truth_depth/dslr_images"


def open_source(section: Data) -> Eth3d:
    """The scenes under `section.root`, which may be one of them."""
    refuse_encoding(section)
    root = data_root(section)
    rows = []
    for depth in sorted((*root.glob(f"{DEPTHS}/*.JPG"), *root.glob(f"*/{DEPTHS}/*.JPG"))):
        folder = depth.parents[2]
        colour = folder / IMAGES / depth.name
        scene = folder.resolve().name
        frame = Frame(f"{scene}/{depth.stem}", scene, split="", source="eth3d")
        rows.append(FrameRow(frame, tuple(str(path.relative_to(root)) for path in (colour, depth))))
    if not rows:
        raise DataError(f"{root}: no SCENE/{DEPTHS}/*.JPG, as ETH3D has them")
    return Eth3d(root, rows, keys=KEYS & keys_to_read(section), encoding=ENCODING)


def fits(root: Path) -> bool:
    """Whether there is a scene, at most one level down."""
    return any((path / DEPTHS).is_dir() for path in (root, *root.glob("*/")))


class Eth3d(FrameFiles):
    """A data set of laser scans. See `depthray.data.source.Source`."""

    fingerprint_tag = "Eth3d"

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        image = self.files.colour(self.file(index, "image"))
        depth = self.metres(index, self._read(index, image.shape[:2]))
        return {"image": image, "depth": depth}

    def stored_depth(self, index: int) -> Pixels:
        """Frame -> (H,W) float32 metres, infinite where unmeasured"""
        return self._read(index, self.files.colour(self.file(index, "image")).shape[:2])

    def _read(self, index: int, size: tuple[int, ...]) -> Pixels:
        """The numbers of a file that has no header and the name of an image -> (H,W) float32"""
        path = self.path(index, "depth")
        self.files.unchanged(self.file(index, "depth"))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        if len(content) != 4 * size[0] * size[1]:
            raise DataError(
                f"{path}: {len(content)} bytes, but the image is {size[1]}x{size[0]}, wanted 4 a pixel; is it of the "
                "distorted images (dslr_jpg)?"
            )
        return np.frombuffer(content, "<f4").reshape(size).copy()
