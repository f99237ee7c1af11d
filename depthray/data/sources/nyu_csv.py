"""NYU Depth V2 as Kaggle and DenseDepth hand it out: `data/nyu2_train.csv` and `data/nyu2_test.csv`, without a header.

A line names a colour and a depth file, `data/...`, relative to the folder that holds `data`. Training depth has 8 bits,
255 being 10 m, so steps of 39 mm; test depth is 16-bit millimetres. The part decides, never the values. The scene is
the folder of a recording without its `_out`; the test files carry no scene, they are one: `nyu2_test`.
"""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from depthray.data.sources import Frame, refuse_encoding
from depthray.data.sources._pairs import Pair, Pairs, room_of
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.sections import Data

PARTS = {"nyu2_train.csv": "train", "nyu2_test.csv": "test"}  # list: side
ENCODINGS = {"train": "uint8_10m", "test": "uint16_mm"}  # by side
PREFIX = "data/"


def open_source(section: Data) -> Kaggle:
    """The parts there are at `section.root`, the folder `data` or the one around it; or one part's CSV."""
    refuse_encoding(section)
    root = root_of(section)
    lists = [root] if root.is_file() else _lists(root)
    if not lists or not set(PARTS).issuperset(path.name for path in lists):
        raise DataError(f"{root}: neither {' nor '.join(PARTS)} there, nor in a folder data in it")
    return Kaggle(lists[0].parent, [row for path in lists for row in _read(path)])


def fits(root: Path) -> bool:
    """Whether one of the two lists is there."""
    return bool(_lists(root))


class Kaggle(kinect.Seen):
    """A data set of two parts with a unit each. See `depthray.data.sources.Source`."""

    def __init__(self, root: Path, rows: list[Row]) -> None:
        super().__init__(root, rows, encoding="")

    def encoding(self, index: int) -> str:
        """Frame -> how its depth is stored."""
        return ENCODINGS[self.frames[index].split]


def _lists(root: Path) -> list[Path]:
    for folder in (root, root / "data"):
        found = [folder / name for name in PARTS if (folder / name).is_file()]
        if found:
            return found
    return []


def _read(path: Path) -> list[Pair]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [
                _pair(row, f"{path.name} line {number}", path) for number, row in enumerate(csv.reader(file), 1) if row
            ]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _pair(row: list[str], named: str, path: Path) -> Pair:
    if len(row) != 2 or not all(word.strip() for word in row):
        line = named.removeprefix(path.name).strip()
        raise DataError(
            f"{path}: {line} must name a colour and a depth file, 'rgb,depth', but is '{','.join(row)[:80]}'"
        )
    rgb, depth = (word.strip().replace("\\", "/").removeprefix(PREFIX) for word in row)
    split, encoding = PARTS[path.name]
    name = str(PurePosixPath(rgb).with_suffix("")).removesuffix("_colors")
    frame = Frame(name, room_of(PurePosixPath(rgb).parent.name.removesuffix("_out")), split=split, source="nyu")
    return Pair(rgb, depth, frame, encoding, named)
