"""Image files named by an index: a CSV with the columns rgb, depth and scene, and optionally those in `OPTIONAL`.

Paths in the index are relative to the folder of the index. An EXIF orientation in a colour file is ignored, because the
depth belongs to the pixels as they are stored.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.readers.files import HINT, Pixels, check_camera, data_root, pinhole, read_text
from depthray.data.readers.frame_files import PAIR, FrameFiles, FrameRow
from depthray.data.source import MEASURABLE, NO, YES, Frame, keys_to_read
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

Line = dict[str, str]

INDEX = "index.csv"
REQUIRED = ("rgb", "depth", "scene")
MAPS = {
    "labels": "semantics",
    "instances": "instances",
    "background": "background",
    "mask": "mask",
    "valid": MEASURABLE,  # 0 where there is no depth to measure, as in the sky and behind glass
    "sparse": "sparse",  # one's own sensor, where the depth is better than it
}
PINHOLE = ("fx", "fy", "cx", "cy")
OPTIONAL = (*MAPS, *PINHOLE, "split", "source", "id")
LOSSY = (".jpg", ".jpeg", ".webp")


def open_source(section: Data) -> CsvFolder:
    """The folder, or the index itself, at `section.root`."""
    root = data_root(section)
    keys = keys_to_read(section)
    # Without this it would be read for nothing: all other samples are made of the depth.
    keys -= set() if section.sparse.pattern == "stored" else {"sparse"}
    return CsvFolder(root if root.is_file() else root / INDEX, section.encoding, keys)


def fits(root: Path) -> bool:
    """Whether the folder has an index, or the path is one."""
    return root.suffix == ".csv" or (root / INDEX).is_file()


class CsvFolder(FrameFiles):
    """A data set of single files. See `depthray.data.source.Source`."""

    called = MappingProxyType({"image": "rgb", **{key: column for column, key in MAPS.items()}})
    declared = True

    def __init__(self, index: Path, encoding: str, keys: frozenset[str]) -> None:
        self._index = index
        self._lines = _read_index(index)
        columns = _filled_columns(self._lines, index)
        maps = {column: key for column, key in MAPS.items() if column in columns and key in keys}
        # All four numbers, or no camera.
        camera = PINHOLE if columns.issuperset(PINHOLE) else ()
        super().__init__(
            index.parent,
            [_row(line, ("rgb", "depth", *maps), camera) for line in self._lines],
            roles=(*PAIR, *maps.values()),
            keys=frozenset({*PAIR, *maps.values(), *(("intrinsics",) if camera else ())}),
            encoding=encoding,
            hint=f"paths in {index.name} are relative to its folder, {HINT}",
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the index, the encoding and the size of every file."""
        digest = sha256(self._encoding.encode())
        for line in self._lines:
            digest.update(repr(sorted(line.items())).encode())  # sorted: the order of columns changes nothing
        for row in self.rows:
            for name in row.files:
                digest.update(f"{name}:{self.files.size(name)}".encode())
        return digest.hexdigest()

    def faults(self, index: int) -> list[str]:
        """Values of the depth file that are read as unmeasured although they are not 0."""
        return self.odd_depth(index)

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        arrays = super().arrays(index)
        for key in self.roles[len(PAIR) :]:
            arrays[key] = self._read_map(key, self.file(index, key))
        if MEASURABLE in arrays and arrays[MEASURABLE].shape == arrays["depth"].shape:  # other sizes are an error later
            arrays["depth"] = np.where(arrays[MEASURABLE] == NO, np.float32(0), arrays["depth"])
        if "intrinsics" in self.keys:
            where = f"{self._index}: frame '{self.frames[index].id}'"
            arrays["intrinsics"] = _matrix(self.rows[index].camera, where)
        return arrays

    def _read_map(self, key: str, name: str) -> Pixels:
        """Name of a file -> (H,W) int32 ids, float32 metres or uint8 mask of 0 and 1, or (H,W,3) uint8 RGB."""
        if key == "background":
            return self.files.colour(name)
        if key == "sparse":  # in the unit of the depth
            return encodings.decode(self.files.load(name), self._encoding, where=str(self.files.path(name)))
        pixels = self.files.ids(name, key=key)
        if key in ("mask", MEASURABLE):
            # JPEG smears a mask of 0 and 255, so its threshold is the middle; lossless files may also hold 0 and 1.
            is_set = pixels > (127 if name.lower().endswith(LOSSY) else 0)
            return is_set.astype(np.uint8) if key == "mask" else np.where(is_set, YES, NO).astype(np.uint8)
        return pixels.astype(np.int32)  # ids of any width: NYU's 894 classes do not fit into 8 bits


def _read_index(index: Path) -> list[Line]:
    hint = (
        f"a data set of files needs an index with {', '.join(REQUIRED)}, which `depthray data index RGB_DIR DEPTH_DIR` "
        "writes"
    )
    text = read_text(index, kind="CSV file", hint=hint)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        lines = [{key: value or "" for key, value in line.items() if key} for line in reader]
        columns = reader.fieldnames or []
    except csv.Error as error:
        raise DataError(f"{index}: not a CSV file in UTF-8: {error}") from None
    for column in REQUIRED:
        if column not in columns:
            raise DataError(
                f"{index}: no column '{column}' in its first line, which is '{','.join(columns)[:80]}'"
                f"{_header_hint(column, columns)}"
            )
    return lines


def _header_hint(column: str, columns: Sequence[str]) -> str:
    """What is probably wrong with a first line that lacks a column."""
    if len(columns) == 1 and (mark := next((each for each in ";\t|" if each in columns[0]), "")):
        return f"; separate its fields by commas, not by {'tabs' if mark == chr(9) else repr(mark)}"
    near = next((each for each in columns if each.strip().lower() == column), "")
    if near:
        return f"; write '{column}' for '{near}'"
    return f"; give {', '.join(REQUIRED[:-1])} and {REQUIRED[-1]}" + "; scene names the room or recording" * (
        column == "scene"
    )


def _filled_columns(lines: list[Line], index: Path) -> frozenset[str]:
    """The columns with a value in every row; a DataError for a column with a value in some rows only."""
    filled = {column for line in lines for column, value in line.items() if value}
    needed = (*REQUIRED, *sorted(filled.intersection((*MAPS, *PINHOLE))))
    # A value in some rows only would give samples of different keys, which no batch can hold.
    for number, line in enumerate(lines):
        for column in needed:
            if not line.get(column):
                # Lines count from 1, and the first has the names of the columns.
                raise DataError(f"{index}: frame {number} (line {number + 2}) has no {column}; give it for every frame")
    return frozenset(filled)


def _row(line: Line, files: tuple[str, ...], camera: tuple[str, ...]) -> FrameRow:
    name = line.get("id") or str(Path(line["rgb"]).with_suffix(""))
    frame = Frame(name, line["scene"], split=line.get("split", ""), source=line.get("source", ""))
    return FrameRow(frame, tuple(line[column] for column in files), camera=tuple(line[column] for column in camera))


def _matrix(fields: tuple[str, ...], where: str) -> NDArray[np.float32]:
    """fx, fy, cx, cy in pixels, as text -> (3,3) float32 pinhole matrix"""
    try:
        matrix = pinhole(*(float(field) for field in fields))
    except ValueError:
        raise DataError(f"{where}: {', '.join(PINHOLE)} must be numbers, are {list(fields)}") from None
    return check_camera(matrix, where=where)
