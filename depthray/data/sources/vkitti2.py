"""Virtual KITTI 2: SCENE/VARIANT/frames/rgb/Camera_0/rgb_00000.jpg, depth beside it, SCENE/VARIANT/intrinsic.txt.

Depth is centimetres in 16 bits; 65535, the sky, is read as unmeasured, and as having no depth to measure. A scene is
one of the five streets, as a variant (fog, rain, another angle) shows the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data.readers.files import Pixels, data_root, pinhole, read_text
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import MEASURABLE, NO, YES, Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

ENCODING = "uint16/100"
STORED = "uint16_256"  # in shards: to 255.99 m, where millimetres end at 65.5
SKY = 65535
KEYS = frozenset({"image", "depth", "intrinsics", MEASURABLE})
COLOURS = "**/Scene*/*/frames/rgb/Camera_*/rgb_*.jpg"


def open_source(section: Data) -> VirtualKitti:
    """The data set at `section.root`, its parts unpacked into one folder or side by side."""
    refuse_encoding(section)
    root = data_root(section)
    rows = sorted(_rows(root))
    if not rows:
        raise DataError(
            f"{root}: no Scene*/VARIANT/frames/rgb/Camera_*/rgb_*.jpg with depth, as Virtual KITTI 2 has them"
        )
    return VirtualKitti(root, rows, keys=KEYS & keys_to_read(section), encoding=ENCODING)


def fits(root: Path) -> bool:
    """Whether there is a scene, at most one level down."""
    return any(any(root.glob(f"{level}Scene*/*/frames")) for level in ("", "*/"))


class VirtualKitti(FrameFiles):
    """A data set of rendered streets. See `depthray.data.source.Source`."""

    fingerprint_tag = "VirtualKitti"

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        fx, fy, cx, cy = (float(part) for part in self.rows[index].camera)
        stored = self.stored_depth(index)
        arrays = {
            "image": self.files.colour(self.file(index, "image")),
            "depth": self.metres(index, stored),
            MEASURABLE: np.where(stored == SKY, NO, YES).astype(np.uint8),
            "intrinsics": pinhole(fx, fy, cx, cy),
        }
        return {key: array for key, array in arrays.items() if key in self.keys}

    def metres(self, index: int, stored: Pixels) -> NDArray[np.float32]:
        """Frame, its depth as stored -> (H,W) float32 metres, 0 in the sky."""
        return np.where(stored == SKY, np.float32(0), super().metres(index, stored))


def _rows(root: Path) -> Iterator[FrameRow]:
    """The frames whose depth is there; the parts of the download are folders of their own names, or one folder."""
    cameras: dict[Path, dict[tuple[str, str], tuple[str, ...]]] = {}
    for rgb in root.glob(COLOURS):
        *above, scene, variant, _, _, camera, _ = rgb.relative_to(root).parts
        number = rgb.stem.removeprefix("rgb_")
        places = [Path(*above), *(path.relative_to(root) for path in root.iterdir() if path.is_dir())]
        file = Path(scene, variant, "frames", "depth", camera, f"depth_{number}.png")
        depth = next((place / file for place in places if (root / place / file).is_file()), None)
        if depth is None:
            continue
        listed = next((root / place / scene / variant / "intrinsic.txt" for place in places
                       if (root / place / scene / variant / "intrinsic.txt").is_file()), None)  # fmt: skip
        if listed is None:
            raise DataError(f"{root}: no {scene}/{variant}/intrinsic.txt; unpack vkitti_2.0.3_textgt there")
        if listed not in cameras:
            cameras[listed] = _read_cameras(listed)
        lens = cameras[listed].get((str(int(number)), camera.removeprefix("Camera_")))
        if lens is None:
            raise DataError(f"{listed}: no line for frame {int(number)} of {camera}")
        name = f"{scene}/{variant}/{camera}/{number}"
        files = (str(rgb.relative_to(root)), str(depth))
        yield FrameRow(Frame(name, scene, split="", source="vkitti2"), files, camera=lens)


def _read_cameras(path: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """Frame and camera -> fx, fy, cx, cy, of lines `frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]`"""
    lines = [line.split() for line in read_text(path).splitlines()[1:] if line.strip()]
    if any(len(parts) != 6 for parts in lines):
        raise DataError(f"{path}: wanted lines of a frame, a camera and four numbers")
    return {(parts[0], parts[1]): tuple(parts[2:]) for parts in lines}
