"""Hypersim: ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg next to scene_cam_*_geometry_hdf5.

Depth files hold the distance to the optical centre in metres; it is converted to the distance along the optical axis
with the default camera (a few scenes with a shifted lens differ). NaN is unmeasured. The published split is used where
metadata_images_split_scene_v1.csv is in the root; the frames it leaves out are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data.readers.files import Pixels, data_root, pinhole, read_text
from depthray.data.readers.frame_files import PAIR, FrameFiles, FrameRow
from depthray.data.readers.hdf5 import read_datasets
from depthray.data.source import DataTerms, Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

TERMS = {"hypersim": DataTerms("indoors, rendered", "CC BY-SA 3.0")}
ENCODING = "float_m"
FOCAL, WIDTH = 886.81, 1024  # pixels
SPLIT = "metadata_images_split_scene_v1.csv"
IDS = {"semantics": "semantic", "instances": "semantic_instance"}  # key: part of the file's name


def open_source(section: Data) -> Hypersim:
    """The scenes at `section.root`."""
    refuse_encoding(section)
    root = data_root(section)
    images = sorted(root.glob("ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg"))
    if not images:
        raise DataError(f"{root}: no ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg, as Hypersim has them")
    requested = keys_to_read(section)
    # The first frame decides: ids are downloaded separately, for all frames or for none.
    ids = tuple(key for key in IDS if key in requested and _geometry(images[0], IDS[key]).is_file())
    rows = list(_rows(root, images, ids))
    keys = requested & {"image", "depth", "intrinsics", *ids}
    left_out = len(images) - len(rows)
    notes = [f"{left_out} frames left out: not part of the published split"] if left_out else []
    return Hypersim(root, rows, roles=(*PAIR, *ids), keys=keys, encoding=ENCODING, notes=notes)


def fits(root: Path) -> bool:
    """Whether the folder has scenes of Hypersim."""
    return any(root.glob("ai_[0-9]*_[0-9]*/images"))


class Hypersim(FrameFiles):
    """A data set of rendered scenes. See `depthray.data.source.Source`."""

    fingerprint_tag = "Hypersim"

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        arrays = super().arrays(index)
        for key in self.roles[len(PAIR) :]:
            arrays[key] = self._ids(index, key)
        if "intrinsics" in self.keys:
            height, width = arrays["image"].shape[:2]
            arrays["intrinsics"] = pinhole(_focal(width), _focal(width), (width - 1) / 2, (height - 1) / 2)
        return arrays

    def stored_depth(self, index: int) -> Pixels:
        """Frame -> (H,W) metres to the optical centre, as stored"""
        return self._dataset(index, "depth")

    def metres(self, index: int, stored: Pixels) -> NDArray[np.float32]:
        """Frame, its depth as stored -> (H,W) float32 metres along the optical axis"""
        return along_axis(super().metres(index, stored))

    def _ids(self, index: int, key: str) -> NDArray[np.int32]:
        """(H,W) ids, -1 where there is none -> (H,W) int32, 0 there."""
        ids = self._dataset(index, key)
        if ids.ndim != 2 or ids.dtype.kind not in "ui":
            where = self.path(index, key)
            raise DataError(f"{where}: ids are {ids.dtype} {ids.shape}, wanted (H, W) integers")
        # 0 is the id of nothing in all other sets.
        return np.maximum(ids, 0).astype(np.int32)

    def _dataset(self, index: int, role: str) -> Pixels:
        # Each of these files has one array, of this name.
        (array,) = read_datasets(self.files.unchanged(self.file(index, role)), "dataset")
        return array


def _rows(root: Path, images: list[Path], ids: tuple[str, ...]) -> Iterator[FrameRow]:
    sides = _sides(root / SPLIT)
    for image in images:
        scene, camera, number = _names(image)
        files = (image, _geometry(image, "depth_meters"), *(_geometry(image, IDS[key]) for key in ids))
        if sides is None or (scene, camera, number) in sides:
            split = sides[scene, camera, number] if sides else ""
            frame = Frame(f"{scene}/{camera}/{number:04d}", scene, split, "hypersim")
            yield FrameRow(frame, tuple(str(path.relative_to(root)) for path in files))


def _names(image: Path) -> tuple[str, str, int]:
    """ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg -> ai_001_001, cam_00, 0."""
    camera = image.parent.name.removeprefix("scene_").removesuffix("_final_preview")
    number = image.name.split(".")[1]
    if not number.isdecimal():
        raise DataError(f"{image}: its name has no frame number, as in frame.0000.tonemap.jpg")
    return image.parents[2].name, camera, int(number)


def _geometry(image: Path, kind: str) -> Path:
    """The file of a frame with its depth or ids."""
    folder = image.parent.name.replace("_final_preview", "_geometry_hdf5")
    return image.parents[1] / folder / image.name.replace("tonemap.jpg", f"{kind}.hdf5")


def _sides(path: Path) -> dict[tuple[str, str, int], str] | None:
    """Side by scene, camera and number of the frames in the published split; None without its file."""
    if not path.is_file():
        return None
    rows = csv.DictReader(read_text(path).splitlines())
    try:
        return {
            (row["scene_name"], row["camera_name"], int(row["frame_id"])): row["split_partition_name"]
            for row in rows
            if row["split_partition_name"]  # empty for frames that the authors left out
        }
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not the table of the published split ({error}); repair or remove it") from None


def _focal(width: int) -> float:
    """Width in pixels -> focal length in pixels, which scales with it."""
    # 886.81 is half the width over tan(30 degrees): the default camera sees 60.
    return FOCAL * width / WIDTH


def along_axis(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H,W) float32 metres to the optical centre -> (H,W) float32 metres along the optical axis."""
    height, width = distance.shape
    # Pixel centres are at whole numbers, so the optical axis is at (width - 1) / 2.
    across = np.arange(width) - (width - 1) / 2
    down = np.arange(height)[:, None] - (height - 1) / 2
    focal = _focal(width)
    return np.asarray(distance * (focal / np.sqrt(across**2 + down**2 + focal**2)), np.float32)
