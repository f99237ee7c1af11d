"""SUN RGB-D: a folder a frame with image/*.jpg, depth_bfx/*.png (refined) or depth/*.png, intrinsics.txt, scene.txt.

Depth is millimetres with bits rotated left by 3. Beyond 8 m it is read as unmeasured: the sensors do not measure that
far, and a clamp to 8 m would train on a wall that is not there. scene.txt names the kind of room, not the room, so that
frames of one folder and one kind are kept together.

The official split is read from allsplit.mat of the toolbox, where that is in the root or next to it. It keeps buildings
apart, but not folders: a scene is then of one side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.readers import mat5
from depthray.data.readers.files import Pixels, data_root, read_text
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import DataTerms, Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

TERMS = {"sunrgbd": DataTerms("indoors", "")}
ENCODING = "uint16_mm, bits rotated left by 3"  # of this form alone
SENSORS = ("kv1", "kv2", "realsense", "xtion")
DEPTHS = ("depth_bfx", "depth")  # refined first, where a download has both
KEYS = frozenset({"image", "depth", "intrinsics"})
ROLES = ("image", "depth", "intrinsics")
FAR = 8.0  # metres
TOOLBOX = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
SPLITS = ("allsplit.mat", TOOLBOX, f"../{TOOLBOX}", f"../../{TOOLBOX}")  # the root may also be a sensor's folder
SIDES = {"alltrain": "train", "alltest": "test"}  # by variable


def open_source(section: Data) -> SunRgbd:
    """The data set, or the folder of some of its sensors, at `section.root`."""
    refuse_encoding(section)
    root = data_root(section)
    rows = sorted(_rows(root))
    if not rows:
        raise DataError(f"{root}: no folders with image/*.jpg and depth_bfx/ or depth/*.png, as SUN RGB-D has them")
    notes: list[str] = []
    if path := next((root / name for name in SPLITS if (root / name).is_file()), None):
        rows, notes = _with_sides(rows, root, path)
    return SunRgbd(root, rows, roles=ROLES, keys=KEYS & keys_to_read(section), encoding=ENCODING, notes=notes)


def fits(root: Path) -> bool:
    """Whether the folder has those of its sensors."""
    return any((root / above / sensor).is_dir() for above in ("", "SUNRGBD") for sensor in SENSORS)


class SunRgbd(FrameFiles):
    """A data set of a folder a frame. See `depthray.data.source.Source`."""

    fingerprint_tag = "SunRgbd"

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        arrays = super().arrays(index)
        if "intrinsics" in self.keys:
            arrays["intrinsics"] = self.files.camera(self.file(index, "intrinsics"))
        return arrays

    def metres(self, index: int, stored: Pixels) -> NDArray[np.float32]:
        """Frame, its depth as stored -> (H,W) float32 metres."""
        return metres(stored, where=str(self.path(index, "depth")))


def _rows(root: Path) -> Iterator[FrameRow]:
    for path, folders, _ in os.walk(root):
        depth = next((name for name in DEPTHS if name in folders), "")
        if "image" in folders and depth:
            folders.clear()  # a frame contains no other frames, and a walk through all of its files takes time
            frame = Path(path)
            files = (_only_image(frame / "image"), _only_image(frame / depth), frame / "intrinsics.txt")
            name = str(frame.relative_to(root))
            scene = f"{Path(name).parent}/{_kind(frame)}".rstrip("/")
            yield FrameRow(Frame(name, scene, "", "sunrgbd"), tuple(str(file.relative_to(root)) for file in files))


def _with_sides(rows: list[FrameRow], root: Path, path: Path) -> tuple[list[FrameRow], list[str]]:
    """Frames -> those that the official split has, with their side; and a note on others."""
    listed = mat5.read_texts(path)
    if missing := [name for name in SIDES if name not in listed]:
        raise DataError(f"{path}: no variable '{missing[0]}'")
    sides = {_from_sensor(Path(text)): side for name, side in SIDES.items() for text in listed[name]}
    sided: list[FrameRow] = []
    for row in rows:
        side = sides.get(_from_sensor(root.resolve() / row.frame.id), "")
        if side:
            frame = row.frame._replace(split=side, scene=f"{row.frame.scene} ({side})")
            sided.append(row._replace(frame=frame))
    if not sided:
        raise DataError(f"{path}: lists none of the {len(rows)} frames in {root}; is it of this data set?")
    unlisted = len(rows) - len(sided)
    return sided, [f"{path}: {unlisted} frames left out, which it does not list"] if unlisted else []


def _from_sensor(path: Path) -> str:
    """A path -> its part from the folder of the sensor on, by which the split and the disk agree."""
    parts = path.parts
    start = next((place for place in reversed(range(len(parts))) if parts[place] in SENSORS), 0)
    return "/".join(parts[start:])


def _only_image(folder: Path) -> Path:
    """The one image in a folder; its name is different in every frame."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    if len(files) != 1:
        raise DataError(f"{folder}: holds {len(files)} images, wanted 1")
    return files[0]


def _kind(frame: Path) -> str:
    path = frame / "scene.txt"
    return read_text(path).strip() if path.is_file() else ""


def metres(stored: NDArray[Any], *, where: str) -> NDArray[np.float32]:
    """(H,W) uint16 rotated millimetres -> (H,W) float32 metres, 0 beyond `FAR`."""
    if stored.dtype == np.uint16:  # else `decode` refuses it
        stored = (stored >> 3) | (stored << 13)  # a rotation: 16 bits drop what is shifted out
    depth = encodings.decode(stored, "uint16_mm", where=where)
    return np.where(depth <= FAR, depth, np.float32(0))
