"""Image files named by an index: a CSV with columns rgb, depth, scene and, if there are, the ones in `OPTIONAL`.

Paths in the index are relative to the folder of the index. An EXIF orientation in a colour file is ignored, because the
depth belongs to the pixels as they are stored.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.sources import Frame, wanted
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.sections import Data

Pixels = NDArray[Any]
Row = dict[str, str]
Stamp = tuple[int, int]  # size in bytes, time of change in ns

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
        self._stamps: dict[str, Stamp] = {}
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
        for name in self._files():
            self._stamps[name] = self._stamp(name)
            digest.update(f"{name}:{self._stamps[name][0]}".encode())
        return digest.hexdigest()

    def read(self, index: int) -> Sample:
        """Read the files of one frame."""
        row, frame = self._rows[index], self.frames[index]
        sample: Sample = {"image": self._colour(row["rgb"]), "depth": self._depth(row["depth"])}
        for column, key in self._maps.items():
            sample[key] = self._map(key, row[column])  # type: ignore[literal-required]
        if "intrinsics" in self.keys:
            sample["intrinsics"] = _matrix(row, f"{self._index}: frame '{frame.id}'")
        self._refuse_unlike_sizes(sample, row)
        return {**sample, "id": frame.id, "scene": frame.scene, "source": frame.source}

    def faults(self, index: int) -> list[str]:
        """Values of the depth file that are taken for unmeasured though they are not 0."""
        name = self._rows[index]["depth"]
        odd = encodings.odd_values(self._load(name, cv2.IMREAD_UNCHANGED))
        return [f"{self._path(name)}: {odd} values, read as unmeasured"] if odd else []

    def _files(self) -> Iterator[str]:
        for row in self._rows:
            yield from (row[column] for column in ("rgb", "depth", *self._maps))

    def _path(self, name: str) -> Path:
        return self._index.parent / name

    def _stamp(self, name: str) -> Stamp:
        try:
            status = os.stat(self._path(name))
        except OSError as error:
            raise self._unreadable(name, error) from None
        return status.st_size, status.st_mtime_ns

    def _unreadable(self, name: str, error: OSError) -> DataError:
        return DataError(
            f"{self._path(name)}: {error.strerror or error}; paths in {self._index.name} are relative to its folder, "
            "`depthray data check` lists every bad file"
        )

    def _bytes(self, name: str) -> bytes:
        try:
            content = self._path(name).read_bytes()
        except OSError as error:
            raise self._unreadable(name, error) from None
        if name in self._stamps and self._stamp(name) != self._stamps[name]:
            raise DataError(f"{self._path(name)}: changed since the data set was opened; start again on settled data")
        return content

    def _load(self, name: str, flags: int) -> Pixels:
        content = self._bytes(name)
        pixels = _npy(content) if name.endswith(".npy") else _decode(content, flags)
        if pixels is None:
            raise DataError(f"{self._path(name)}: not a readable image ({len(content)} bytes); mend it or drop its row")
        return pixels

    def _colour(self, name: str) -> NDArray[np.uint8]:
        """Name of a file -> (H,W,3) uint8 RGB."""
        pixels = self._load(name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise DataError(f"{self._path(name)}: colour is {pixels.dtype} {pixels.shape}, wanted uint8 (H, W, 3)")
        if name.endswith(".npy"):  # as RGB; only OpenCV gives BGR
            return pixels
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels).astype(np.uint8, copy=False)

    def _depth(self, name: str) -> NDArray[np.float32]:
        """Name of a file -> (H,W) float32 metres."""
        return encodings.decode(self._load(name, cv2.IMREAD_UNCHANGED), self._encoding, where=str(self._path(name)))

    def _map(self, key: str, name: str) -> Pixels:
        """Name of a file -> (H,W) int32 ids, (H,W) uint8 mask of 0 and 1, or (H,W,3) uint8 RGB."""
        if key == "background":
            return self._colour(name)
        pixels = self._load(name, cv2.IMREAD_UNCHANGED)
        if pixels.ndim != 2 or pixels.dtype.kind not in "ub":
            raise DataError(f"{self._path(name)}: {key} is {pixels.dtype} {pixels.shape}, wanted (H, W) whole numbers")
        if key == "mask":
            # Lossy files smear a mask of 0 and 255; lossless ones may as well hold 0 and 1.
            return (pixels > (127 if name.lower().endswith(LOSSY) else 0)).astype(np.uint8)
        return pixels.astype(np.int32)

    def _refuse_unlike_sizes(self, sample: Sample, row: Row) -> None:
        size = sample["image"].shape[:2]
        for column, key in {"depth": "depth", **self._maps}.items():
            other = sample[key].shape[:2]  # type: ignore[literal-required]
            if other != size:
                raise DataError(
                    f"{self._path(row[column])}: size mismatch, {column} is {other[1]}x{other[0]} "
                    f"but rgb is {size[1]}x{size[0]}; resize one of them (depth with nearest neighbour)"
                )


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


def _npy(content: bytes) -> Pixels | None:
    try:
        array: Pixels = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return array


def _decode(content: bytes, flags: int) -> Pixels | None:
    if not content:  # OpenCV raises on this one and returns None on any other garbage
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
