"""NYU Depth V2 as distributed by Kaggle and DenseDepth: `data/nyu2_train.csv` and `data/nyu2_test.csv`, no header.

A line names a colour and a depth file, `data/...`, relative to the folder that contains `data`. Training depth has 8
bits, 255 being 10 m, so steps of 39 mm; test depth is 16-bit millimetres. The list decides, never the values. The scene
is the folder of a recording without its `_out`; the test files name no scene and are all of one: `nyu2_test`.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from depthray.data.readers import kinect
from depthray.data.readers.files import data_root, read_text
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

PARTS = {"nyu2_train.csv": "train", "nyu2_test.csv": "test"}  # list: side
ENCODINGS = {"train": "uint8_10m", "test": "uint16_mm"}  # by side
PREFIX = "data/"
KEYS = frozenset({"image", "depth", "intrinsics"})


def open_source(section: Data) -> NyuKaggle:
    """The lists at `section.root`, which is the folder `data`, the one around it, or one of the lists."""
    refuse_encoding(section)
    root = data_root(section)
    lists = [root] if root.is_file() else _lists(root)
    if not lists or not set(PARTS).issuperset(path.name for path in lists):
        raise DataError(f"{root}: neither {' nor '.join(PARTS)} there, nor in a folder data in it")
    rows = [row for path in lists for row in _read(path)]
    # Both units are part of the fingerprint; `encoding` states that of a frame.
    return NyuKaggle(lists[0].parent, rows, keys=KEYS, encoding=" or ".join(ENCODINGS.values()))


def fits(root: Path) -> bool:
    """Whether the folder has one of the two lists."""
    return bool(_lists(root))


class NyuKaggle(FrameFiles):
    """A data set of two parts with a unit each. See `depthray.data.source.Source`."""

    fingerprint_tag = "Kaggle"

    def encoding(self, index: int) -> str:
        """Frame -> how its depth is stored."""
        return ENCODINGS[self.frames[index].split]

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        arrays = super().arrays(index)
        # The full view of the camera, whatever the size of the files.
        return {**arrays, "intrinsics": kinect.COLOUR.matrix(arrays["image"].shape[:2])}


def _lists(root: Path) -> list[Path]:
    for folder in (root, root / "data"):
        lists = [folder / name for name in PARTS if (folder / name).is_file()]
        if lists:
            return lists
    return []


def _read(path: Path) -> list[FrameRow]:
    lines = csv.reader(io.StringIO(read_text(path, kind="CSV file"), newline=""))
    try:
        return [_row(line, f"{path.name} line {number}", path) for number, line in enumerate(lines, 1) if line]
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _row(line: list[str], named: str, path: Path) -> FrameRow:
    if len(line) != 2 or not all(field.strip() for field in line):
        number = named.removeprefix(path.name).strip()
        raise DataError(
            f"{path}: {number} must name a colour and a depth file, 'rgb,depth', but is '{','.join(line)[:80]}'"
        )
    # Some copies of the lists were written on Windows.
    rgb, depth = (field.strip().replace("\\", "/").removeprefix(PREFIX) for field in line)
    name = str(PurePosixPath(rgb).with_suffix("")).removesuffix("_colors")  # the test files' own suffix
    scene = kinect.room_of(PurePosixPath(rgb).parent.name.removesuffix("_out"))
    return FrameRow(Frame(name, scene, split=PARTS[path.name], source="nyu"), (rgb, depth), named=named)
