"""Image files named by an index: a CSV with columns rgb, depth, scene and, if there are, the ones in `OPTIONAL`.

Paths in the index are relative to the folder of the index. An EXIF orientation in a colour file is ignored, because the
depth belongs to the pixels as they are stored.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.sources import Frame, wanted
from depthray.data.sources._images import Files, Pixels, refuse_unlike_sizes
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.sections import Data

Row = dict[str, str]

INDEX = "index.csv"
REQUIRED = ("rgb", "depth", "scene")
MAPS = {"labels": "semantics", "instances": "instances", "background": "background", "mask": "mask"}
PINHOLE = ("fx", "fy", "cx", "cy")
OPTIONAL = (*MAPS, *PINHOLE, "split", "source", "id")
LOSSY = (".jpg", ".jpeg", ".webp")


def open_source(section: Data) -> Folder:
    """The folder, or the index itself, at `section.root`."""
    if not section.root:
        raise DataError("data.root is empty: say where the data lies with --data PATH")
    root = Path(section.root)
    return Folder(root if root.is_file() else root / INDEX, section.encoding, wanted(section))


def fits(root: Path) -> bool:
    """Whether there is an index, or the path is one."""
    return root.suffix == ".csv" or (root / INDEX).is_file()


class Folder:
    """A data set of single files. See `depthray.data.sources.Source`."""

    def __init__(self, index: Path, encoding: str, keys: frozenset[str]) -> None:
        self._index = index
        self._encoding = encoding
        self._rows = _read_index(index)
        self._columns = _filled_columns(self._rows, index)
        self._maps = {column: key for column, key in MAPS.items() if column in self._columns and key in keys}
        self._files = Files(
            index.parent,
            hint=f"paths in {index.name} are relative to its folder, `depthray data check` lists every bad file",
        )
        self.frames = [_frame(row) for row in self._rows]

    @property
    def keys(self) -> frozenset[str]:
        """The keys every sample has."""
        pinhole = {"intrinsics"} if set(PINHOLE) <= self._columns else set()
        return frozenset({"image", "depth", *self._maps.values(), *pinhole})

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the index, the encoding and the size of every file."""
        digest = sha256(self._encoding.encode())
        for row in self._rows:
            digest.update(repr(sorted(row.items())).encode())
        for name in self._names():
            digest.update(f"{name}:{self._files.size(name)}".encode())
        return digest.hexdigest()

    def read(self, index: int) -> Sample:
        """Read the files of one frame."""
        row, frame = self._rows[index], self.frames[index]
        sample: Sample = {
            "image": self._files.colour(row["rgb"]),
            "depth": self._files.depth(row["depth"], encoding=self._encoding),
        }
        for column, key in self._maps.items():
            sample[key] = self._map(key, row[column])  # type: ignore[literal-required]
        if "intrinsics" in self.keys:
            sample["intrinsics"] = _matrix(row, f"{self._index}: frame '{frame.id}'")
        self._refuse_unlike_sizes(sample, row)
        return {**sample, "id": frame.id, "scene": frame.scene, "source": frame.source}

    def faults(self, index: int) -> list[str]:
        """Values of the depth file that are taken for unmeasured though they are not 0."""
        name = self._rows[index]["depth"]
        odd = encodings.odd_values(self._files.load(name))
        return [f"{self._files.path(name)}: {odd} values, read as unmeasured"] if odd else []

    def _names(self) -> Iterator[str]:
        for row in self._rows:
            yield from (row[column] for column in ("rgb", "depth", *self._maps))

    def _map(self, key: str, name: str) -> Pixels:
        """Name of a file -> (H,W) int32 ids, (H,W) uint8 mask of 0 and 1, or (H,W,3) uint8 RGB."""
        if key == "background":
            return self._files.colour(name)
        pixels = self._files.ids(name, key=key)
        if key == "mask":
            # Lossy files smear a mask of 0 and 255; lossless ones may as well hold 0 and 1.
            return (pixels > (127 if name.lower().endswith(LOSSY) else 0)).astype(np.uint8)
        return pixels.astype(np.int32)

    def _refuse_unlike_sizes(self, sample: Sample, row: Row) -> None:
        for column, key in {"depth": "depth", **self._maps}.items():
            path, other = self._files.path(row[column]), sample[key]  # type: ignore[literal-required]
            refuse_unlike_sizes(sample["image"], other, word=column, path=path)


def _read_index(index: Path) -> list[Row]:
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
            columns = reader.fieldnames or []
    except OSError as error:
        columns = ", ".join(REQUIRED)
        raise DataError(f"{index}: {error.strerror}; a data set of files needs an index with {columns}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{index}: not a CSV file in UTF-8: {error}") from None
    for column in REQUIRED:
        if column not in columns:
            raise DataError(f"{index}: no column '{column}' in its first line, which is '{','.join(columns)[:80]}'")
    return rows


def _filled_columns(rows: list[Row], index: Path) -> frozenset[str]:
    """The columns with a value in every row; one with some values and some gaps is a mistake."""
    filled = {column for row in rows for column, value in row.items() if value}
    needed = (*REQUIRED, *sorted(filled.intersection((*MAPS, *PINHOLE))))
    for number, row in enumerate(rows):
        for column in needed:
            if not row.get(column):
                raise DataError(f"{index}: frame {number} (line {number + 2}) has no {column}; give it for every frame")
    return frozenset(filled)


def _frame(row: Row) -> Frame:
    name = row.get("id") or str(Path(row["rgb"]).with_suffix(""))
    return Frame(id=name, scene=row["scene"], split=row.get("split", ""), source=row.get("source", ""))


def _matrix(row: Row, where: str) -> NDArray[np.float32]:
    """fx, fy, cx, cy in pixels -> (3,3) float32 pinhole matrix."""
    try:
        fx, fy, cx, cy = (float(row[name]) for name in PINHOLE)
    except ValueError:
        raise DataError(f"{where}: fx, fy, cx, cy must be numbers, are {[row[name] for name in PINHOLE]}") from None
    if not (0 < fx < np.inf and 0 < fy < np.inf and np.isfinite(cx) and np.isfinite(cy)):
        raise DataError(f"{where}: focal lengths must be positive and all of fx, fy, cx, cy finite")
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)
