"""KITTI depth: train|val/DRIVE/proj_depth/groundtruth|velodyne_raw/image_02|03/*.png, or the 1000 selected frames.

Depth is uint16 in 1/256 m. Colour is as in the raw data (DATE/DRIVE/image_02/data, in the root or in `raw`) or
next to `proj_depth`. A drive is a scene. The scanner's own points are `sparse`, read where data.sparse.pattern is
`stored`. The camera is that of calib_cam_to_cam.txt, else the published one of the date. Of the selected frames, in
depth_selection/val_selection_cropped, all are val.

Lists of BTS in the root, eigen_train_files_with_gt.txt and eigen_test_files_with_gt.txt, choose frames and sides: with
them the data is the split of Eigen et al. 2014. A list may also be the root itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthray.data import encodings
from depthray.data.readers.bts_lists import ListedFrame, find_lists, read_list, side_of
from depthray.data.readers.files import data_root, pinhole, read_text
from depthray.data.readers.frame_files import PAIR, FrameFiles, FrameRow
from depthray.data.source import DataTerms, Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

TERMS = {"kitti": DataTerms("roads by day", "CC BY-NC-SA 3.0")}
ENCODING = "uint16_256"
STORED = ENCODING  # in shards: millimetres would lose depth beyond 65 m
SIDES = ("train", "val", "test")
# Where the names in a list are looked for: the folders of KITTI's archives, and BTS's, which has no train and val.
IMAGES = ("", "raw", "train", "val", "test")
DEPTHS = ("", "train", "val", "test", "data_depth_annotated", "data_depth_annotated/train", "data_depth_annotated/val")
LISTED = re.compile(r"(?:.*/)?(?P<drive>[^/]+_sync)/(?P<camera>image_0[23])/data/(?P<number>\d+)\.\w+")
SELECTED = ("depth_selection/val_selection_cropped", "val_selection_cropped", ".")
SELECTED_NAME = re.compile(r"(?P<drive>.+_sync)_image_(?P<number>\d+)_(?P<camera>image_0[23])\.png")
CALIBRATION = "calib_cam_to_cam.txt"
# fx = fy, cx, cy in pixels of the rectified colour cameras, by date.
PINHOLES = {
    "2011_09_26": (721.5377, 609.5593, 172.854),
    "2011_09_28": (707.0493, 604.0814, 180.5066),
    "2011_09_29": (718.3351, 600.3891, 181.5122),
    "2011_09_30": (707.0912, 601.8873, 183.1104),
    "2011_10_03": (718.856, 607.1928, 185.2157),
}


def open_source(section: Data) -> Kitti:
    """The listed frames, the selected frames, or the drives at `section.root`."""
    refuse_encoding(section)
    root = data_root(section)
    keys = keys_to_read(section) & {"image", "depth", "intrinsics", "sparse"}
    # The scanner's own points only where the recipe asks for stored ones; other patterns sample the truth.
    keys -= set() if section.sparse.pattern == "stored" else {"sparse"}
    if lists := find_lists(root, kitti=True):
        return _open_lists(lists, keys)
    selection = _selection(root)
    source = _open_selection(selection, keys) if selection else _open_drives(root, keys)
    if not source.frames:
        raise DataError(
            f"{root}: neither train|val/DRIVE/proj_depth/groundtruth nor val_selection_cropped nor BTS's lists there"
        )
    return source


def fits(root: Path) -> bool:
    """Whether the folder has drives, the selected frames, or lists of KITTI, or the path is one."""
    drives = (any(root.glob(f"{side}/*_sync/proj_depth")) for side in SIDES)
    return _selection(root) is not None or any(drives) or bool(find_lists(root, kitti=True))


class Kitti(FrameFiles):
    """A data set of drives, or of selected frames. See `depthray.data.source.Source`."""

    fingerprint_tag = "Kitti"
    STORED = STORED  # also where another form opens it

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        arrays = super().arrays(index)
        if "sparse" in self.roles:
            points = self.files.load(self.file(index, "sparse"))
            arrays["sparse"] = encodings.decode(points, ENCODING, where=str(self.path(index, "sparse")))
        if "intrinsics" in self.roles:
            arrays["intrinsics"] = self.files.camera(self.file(index, "intrinsics"))
        elif "intrinsics" in self.keys:
            arrays["intrinsics"] = pinhole(*(_camera(self.path(index, "image").parent) or ()))
        return arrays


def _open_drives(root: Path, keys: frozenset[str]) -> Kitti:
    roles = (*PAIR, *(("sparse",) if "sparse" in keys else ()))
    rows = list(_drive_rows(root, with_sparse="sparse" in keys))
    return _kitti(root, rows, roles, keys)


def _open_lists(lists: list[Path], keys: frozenset[str]) -> Kitti:
    roles = (*PAIR, *(("sparse",) if "sparse" in keys else ()))
    root = lists[0].parent
    rows: list[FrameRow] = []
    notes: list[str] = []
    # Folder by folder, not file by file, of which there are tens of thousands.
    is_folder = cache(lambda folder: (root / folder).is_dir())
    for path in lists:
        listed, left_out = read_list(path, kitti=True)
        rows += [_listed_row(line, path, roles, is_folder) for line in listed]
        notes += left_out
    return _kitti(root, rows, roles, keys, notes)


def _kitti(
    root: Path, rows: list[FrameRow], roles: tuple[str, ...], keys: frozenset[str], notes: Sequence[str] = ()
) -> Kitti:
    """Frames of drives, with the camera of each where that of all is known."""
    folders = sorted({(root / row.files[0]).parent for row in rows})
    cameras = [_camera(folder) for folder in folders]
    if None in cameras:  # a drive of an unknown date: a sample must have the same keys in all drives
        keys -= {"intrinsics"}
    # Cameras are no files of a frame, so the fingerprint gets them as facts.
    return Kitti(root, rows, roles=roles, keys=keys, encoding=ENCODING, facts=f"{cameras}", notes=notes)


def _open_selection(root: Path, keys: frozenset[str]) -> Kitti:
    roles = (*PAIR, *(role for role in ("intrinsics", "sparse") if role in keys))
    rows = list(_selected_rows(root, roles))
    return Kitti(root, rows, roles=roles, keys=keys, encoding=ENCODING)


def _drive_rows(root: Path, *, with_sparse: bool) -> Iterator[FrameRow]:
    for side in SIDES:
        for truth in sorted(root.glob(f"{side}/*_sync/proj_depth/groundtruth/image_0[23]")):
            drive, camera = truth.parents[2].name, truth.name
            colour, ending = _colour(root, side, drive, camera)
            for depth in sorted(truth.glob("*.png")):
                sparse = truth.parents[1] / "velodyne_raw" / camera / depth.name
                files = (colour / f"{depth.stem}{ending}", depth, *((sparse,) if with_sparse else ()))
                frame = Frame(f"{drive}/{camera}/{depth.stem}", drive, side, "kitti")
                yield FrameRow(frame, tuple(str(path.relative_to(root)) for path in files))


def _listed_row(line: ListedFrame, path: Path, roles: tuple[str, ...], is_folder: Callable[[str], bool]) -> FrameRow:
    """A line of a list -> its frame."""
    parts = LISTED.fullmatch(line.rgb)
    if not parts:
        raise DataError(
            f"{path}: line {line.number} must name colour as DRIVE_sync/image_02/data/NUMBER.png, is '{line.rgb}'"
        )
    drive, camera, number = parts["drive"], parts["camera"], parts["number"]
    rgb, depth = (Path(name.lstrip("/")) for name in (line.rgb, line.depth))
    # As listed, then with and without the date, in which published lists differ.
    colours = [str(rgb.parent), *(f"{above}{drive}/{camera}/data" for above in (f"{drive[:10]}/", ""))]
    files = {
        "image": f"{_find_folder(colours, IMAGES, is_folder)}/{rgb.name}",
        "depth": f"{_find_folder([str(depth.parent)], DEPTHS, is_folder)}/{depth.name}",
    }
    files["sparse"] = files["depth"].replace("/groundtruth/", "/velodyne_raw/")
    frame = Frame(f"{drive}/{camera}/{number}", drive, side_of(path, SIDES), "kitti")
    return FrameRow(frame, tuple(files[role] for role in roles), named=f"{path.name} line {line.number}")


def _find_folder(folders: list[str], above: Sequence[str], is_folder: Callable[[str], bool]) -> str:
    """The first of the folders, below any of those above, that there is; the first of all where there is none."""
    candidates = [f"{base}/{folder}".lstrip("/") for folder in folders for base in above]
    return next(filter(is_folder, candidates), candidates[0])


def _colour(root: Path, side: str, drive: str, camera: str) -> tuple[Path, str]:
    """The folder of the colour images of a drive, and their ending."""
    # The layout of the raw data first, then the copies next to depth that some downloads have.
    folders = [root / above / drive / camera / "data" for above in (drive[:10], f"raw/{drive[:10]}", side)]
    for folder in folders:
        for ending in (".png", ".jpg"):
            if next(folder.glob(f"*{ending}"), None):
                return folder, ending
    raise DataError(f"{folders[0]}: no colour images of the drive there, nor in {folders[1]} or {folders[2]}")


def _selection(root: Path) -> Path | None:
    """The folder of the selected frames; None where there is none, or the root has drives as well."""
    if any(root.glob("train/*_sync")):  # the selected frames are part of the drives' own validation
        return None
    return next((root / name for name in SELECTED if (root / name / "groundtruth_depth").is_dir()), None)


def _selected_rows(root: Path, roles: tuple[str, ...]) -> Iterator[FrameRow]:
    for image in sorted((root / "image").glob("*.png")):
        parts = SELECTED_NAME.fullmatch(image.name)
        if not parts:  # the name alone says which drive and camera a selected frame is of
            raise DataError(f"{image}: not named DRIVE_sync_image_NUMBER_image_02.png, as the selected frames are")
        drive, number, camera = parts["drive"], parts["number"], parts["camera"]
        files = {
            "image": f"image/{image.name}",
            "depth": f"groundtruth_depth/{drive}_groundtruth_depth_{number}_{camera}.png",
            "sparse": f"velodyne_raw/{drive}_velodyne_raw_{number}_{camera}.png",
            "intrinsics": f"intrinsics/{image.stem}.txt",
        }
        frame = Frame(f"{drive}/{camera}/{number}", drive, "val", "kitti")
        yield FrameRow(frame, tuple(files[role] for role in roles))


@cache
def _camera(folder: Path) -> tuple[float, float, float, float] | None:
    """Folder of a drive's colour, ABOVE/DRIVE/image_02/data -> fx, fy, cx, cy in pixels; None for an unknown date."""
    drive, camera = folder.parents[1].name, folder.parent.name
    above = folder.parents[2]  # the folder of the date, or the root
    # One calibration a date: next to its drives as in the raw data, or with colour in the root.
    for path in (above / CALIBRATION, above.parent / drive[:10] / CALIBRATION):
        if path.is_file():
            return _read_calibration(path, f"P_rect_{camera[-2:]}")
    if drive[:10] not in PINHOLES:
        return None
    focal, cx, cy = PINHOLES[drive[:10]]
    return focal, focal, cx, cy


def _read_calibration(path: Path, name: str) -> tuple[float, float, float, float]:
    """A line `P_rect_02: ` of 12 numbers -> fx, fy, cx, cy in pixels."""
    rows = dict(line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
    try:
        matrix = np.array(rows[name].split(), float).reshape(3, 4)
    except (KeyError, ValueError):
        raise DataError(f"{path}: no line '{name}:' with 12 numbers, as KITTI's calibration has") from None
    # The fourth column is the offset to camera 0, which depth of one camera does not need.
    return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])
