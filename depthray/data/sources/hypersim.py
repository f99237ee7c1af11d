"""Hypersim: ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg beside scene_cam_*_geometry_hdf5.

Depth files hold the distance to the optical centre in metres; what is read is the distance along the optical axis, with
the default camera (a few scenes with a shifted lens differ). NaN is unmeasured. The published split is followed where
metadata_images_split_scene_v1.csv lies in the root; the frames it leaves out are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.sources import Frame, _pixels, refuse_encoding, wanted
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.sections import Data

FOCAL, WIDTH = 886.81, 1024  # pixels
SPLIT = "metadata_images_split_scene_v1.csv"
IDS = {"semantics": "semantic", "instances": "semantic_instance"}  # key: part of the file's name


def open_source(section: Data) -> _pixels.FrameFiles:
    """The scenes at `section.root`."""
    refuse_encoding(section)
    root = _pixels.folder_of(section.root)
    images = sorted(root.glob("ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg"))
    if not images:
        raise DataError(f"{root}: no ai_*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg, as Hypersim has them")
    wants = wanted(section)
    ids = tuple(key for key in IDS if key in wants and _geometry(images[0], IDS[key]).is_file())
    rows = list(_rows(root, images, ids))
    keys = wants & {"image", "depth", "intrinsics", *ids}
    return _pixels.FrameFiles(root, rows, roles=("image", "depth", *ids), keys=keys, maps=_maps, facts="hypersim")


def fits(root: Path) -> bool:
    """Whether there are scenes of Hypersim."""
    return any(root.glob("ai_[0-9]*_[0-9]*/images"))


def _rows(root: Path, images: list[Path], ids: tuple[str, ...]) -> Iterator[_pixels.Row]:
    sides = _sides(root / SPLIT)
    for image in images:
        scene, camera, number = _names(image)
        files = (image, _geometry(image, "depth_meters"), *(_geometry(image, IDS[key]) for key in ids))
        if sides is None or (scene, camera, number) in sides:
            split = sides[scene, camera, number] if sides else ""
            frame = Frame(f"{scene}/{camera}/{number:04d}", scene, split, "hypersim")
            yield frame, tuple(str(path.relative_to(root)) for path in files)


def _names(image: Path) -> tuple[str, str, int]:
    """ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg -> ai_001_001, cam_00, 0."""
    camera = image.parent.name.removeprefix("scene_").removesuffix("_final_preview")
    number = image.name.split(".")[1]
    if not number.isdecimal():
        raise DataError(f"{image}: its name has no frame number, as in frame.0000.tonemap.jpg")
    return image.parents[2].name, camera, int(number)


def _geometry(image: Path, kind: str) -> Path:
    """The file of a frame that holds its depth or ids."""
    folder = image.parent.name.replace("_final_preview", "_geometry_hdf5")
    return image.parents[1] / folder / image.name.replace("tonemap.jpg", f"{kind}.hdf5")


def _sides(path: Path) -> dict[tuple[str, str, int], str] | None:
    """Side by scene, camera and number of the frames that are part of the published split, if it is there."""
    if not path.is_file():
        return None
    rows = csv.DictReader(_pixels.read_text(path).splitlines())
    try:
        return {
            (row["scene_name"], row["camera_name"], int(row["frame_id"])): row["split_partition_name"]
            for row in rows
            if row["split_partition_name"]
        }
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not the table of the published split ({error}); mend or remove it") from None


def _maps(files: Mapping[str, Path], keys: frozenset[str]) -> dict[str, _pixels.Pixels]:
    image = _pixels.colour(files["image"])
    maps: dict[str, _pixels.Pixels] = {"image": image, "depth": _depth(files["depth"])}
    for key in IDS:
        if key in keys:
            maps[key] = _ids(files[key])
    if "intrinsics" in keys:
        height, width = image.shape[:2]
        maps["intrinsics"] = _pixels.pinhole(_focal(width), _focal(width), (width - 1) / 2, (height - 1) / 2)
    return maps


def _focal(width: int) -> float:
    return FOCAL * width / WIDTH


def _depth(path: Path) -> NDArray[np.float32]:
    distance = encodings.decode(_dataset(path), "float_m", where=str(path))
    return along_axis(distance)


def along_axis(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H,W) float32 metres to the optical centre -> (H,W) float32 metres along the optical axis."""
    height, width = distance.shape
    across = np.arange(width) - (width - 1) / 2
    down = np.arange(height)[:, None] - (height - 1) / 2
    focal = _focal(width)
    return np.asarray(distance * (focal / np.sqrt(across**2 + down**2 + focal**2)), np.float32)


def _ids(path: Path) -> NDArray[np.int32]:
    """(H,W) ids, -1 where there is none -> (H,W) int32, 0 there."""
    ids = _dataset(path)
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise DataError(f"{path}: ids are {ids.dtype} {ids.shape}, wanted (H, W) whole numbers")
    return np.maximum(ids, 0).astype(np.int32)


def _dataset(path: Path) -> _pixels.Pixels:
    import h5py  # slow to import, and every form is imported to recognise one

    try:
        with h5py.File(path) as file:
            return np.asarray(file["dataset"])
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: no readable HDF5 file with a 'dataset' ({reason}); mend it") from None
