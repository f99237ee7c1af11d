"""Reads and decodes the files below one folder, with errors that name the file."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.source import RESTART
from depthray.errors import DataError
from depthray.storage import remote

if TYPE_CHECKING:
    from depthray.config.sections import Data

Pixels = NDArray[Any]
Stamp = tuple[int, int]  # size in bytes, time of change in ns

HINT = "`depthray data check` lists every bad file"
PFM = re.compile(rb"Pf\s+(?P<width>\d{1,5})\s+(?P<height>\d{1,5})\s+(?P<scale>[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s")
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION  # depth belongs to pixels as stored, not as turned


class Files:
    """Files whose names are relative to one folder; `hint` ends the message about a missing one."""

    def __init__(self, root: Path, *, hint: str = HINT) -> None:
        self._root = root
        self._hint = hint
        self._stamps: dict[str, Stamp] = {}  # of files whose size was asked for, which opening a data set does

    def path(self, name: str) -> Path:
        """The path of a file."""
        return self._root / name

    def size(self, name: str) -> int:
        """Bytes of a file. From now on a change of it is an error."""
        self._stamps[name] = self._stamp(name)
        return self._stamps[name][0]

    def unchanged(self, name: str) -> Path:
        """The path of a file; a DataError if it has changed since its size was taken, if that was done."""
        if name in self._stamps and self._stamp(name) != self._stamps[name]:
            raise DataError(f"{self.path(name)}: changed since the data set was opened; {RESTART}")
        return self.path(name)

    def load(self, name: str, flags: int = cv2.IMREAD_UNCHANGED) -> Pixels:
        """Name of an image, .npy or .pfm file -> (H,W) or (H,W,C) as stored, colours of an image in the order BGR."""
        content, suffix = self._read_bytes(name), Path(name).suffix.lower()
        decoder = {".npy": _decode_npy, ".pfm": _decode_pfm}.get(suffix)
        pixels = decoder(content) if decoder else _decode_image(content, flags)
        if pixels is None:
            kind = f"{suffix} file" if decoder else "image"
            raise DataError(
                f"{self.path(name)}: not a readable {kind} ({len(content)} bytes); repair it or drop its row"
            )
        return pixels

    def colour(self, name: str) -> NDArray[np.uint8]:
        """Name of a file -> (H,W,3) uint8 RGB, as its pixels are stored."""
        pixels = self.load(name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise DataError(f"{self.path(name)}: colour is {pixels.dtype} {pixels.shape}, wanted uint8 (H, W, 3)")
        if name.endswith(".npy"):  # stored as RGB; OpenCV alone gives BGR
            return pixels
        # In place, which saves a copy of every image.
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels).astype(np.uint8, copy=False)

    def ids(self, name: str, *, key: str) -> Pixels:
        """Name of a file -> (H,W) integers as stored; `key` names them in errors."""
        pixels = self.load(name)
        if pixels.ndim != 2 or pixels.dtype.kind not in "ub":
            raise DataError(f"{self.path(name)}: {key} is {pixels.dtype} {pixels.shape}, wanted (H, W) integers")
        return pixels

    def camera(self, name: str) -> NDArray[np.float32]:
        """Name of a text file of nine numbers -> (3,3) float32 pinhole matrix in pixels."""
        path = self.unchanged(name)
        fields = read_text(path).split()
        try:
            matrix = np.array([float(field) for field in fields], np.float32).reshape(3, 3)
        except ValueError:
            raise DataError(f"{path}: holds {len(fields)} values, wanted the 9 numbers of a camera matrix") from None
        return check_camera(matrix, where=str(path))

    def _stamp(self, name: str) -> Stamp:
        try:
            # Size and time, not a digest: reading every byte of a data set before training would take hours.
            status = os.stat(self.path(name))
        except OSError as error:
            raise self._missing(name, error) from None
        return status.st_size, status.st_mtime_ns

    def _missing(self, name: str, error: OSError) -> DataError:
        return DataError(f"{self.path(name)}: {error.strerror or error}; {self._hint}")

    def _read_bytes(self, name: str) -> bytes:
        try:
            content = self.path(name).read_bytes()
        except OSError as error:
            raise self._missing(name, error) from None
        self.unchanged(name)  # after reading, so that a change during it is noticed too
        return content


def data_root(section: Data) -> Path:
    """The path of a section's data set; a DataError if it names none, or one that is missing."""
    if not section.root:
        raise DataError("data.root is empty: name the path of the data with --data PATH")
    if remote.is_remote(section.root):
        raise DataError(
            f"{section.root}: data.source={section.source} is read from a disk only; pack it with "
            "`depthray data pack`, copy the shards there, and give data.source=shards"
        )
    root = Path(section.root)
    try:
        os.stat(root)
    except OSError as error:
        raise DataError(f"{root}: {error.strerror or error}; is the path of the data right?") from None
    return root


def read_text(path: Path, *, kind: str = "text", hint: str = "") -> str:
    """A file as text; a DataError if it is not UTF-8. `kind` names it in errors, `hint` is advice for a missing one."""
    try:
        # -sig: spreadsheets put a mark at the start, which would become part of the first column's name.
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}{hint and '; '}{hint}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a {kind} in UTF-8: {error.reason}") from None


def pinhole(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float32]:
    """Focal lengths and principal point in pixels -> (3,3) float32 pinhole matrix."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)


def check_camera(matrix: NDArray[np.float32], *, where: str) -> NDArray[np.float32]:
    """(3,3) pinhole matrix -> the same; a DataError if its numbers are not those of a camera."""
    if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise DataError(f"{where}: focal lengths must be positive and all numbers of the camera finite")
    return matrix


def _decode_npy(content: bytes) -> Pixels | None:
    """The bytes of an .npy file -> its array; None if damaged. Pickled arrays, which can run a program, are refused."""
    try:
        array: Pixels = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return array


def _decode_pfm(content: bytes) -> Pixels | None:
    """The bytes of a portable float map of one channel -> (H,W) float32 as stored; None if damaged or of colours."""
    header = PFM.match(content)
    if header is None:
        return None
    width, height, scale = int(header["width"]), int(header["height"]), float(header["scale"])
    # The sign of the scale is the byte order; its size is for radiance, and depth is stored unscaled.
    numbers = content[header.end() :]
    if len(numbers) != 4 * width * height or not numbers:
        return None
    rows = np.frombuffer(numbers, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return np.ascontiguousarray(rows[::-1], np.float32)  # the bottom row comes first


def _decode_image(content: bytes, flags: int) -> Pixels | None:
    """The bytes of an image file -> (H,W) or (H,W,3) BGR; None if damaged"""
    if not content:  # OpenCV raises on an empty buffer and returns None for any other garbage
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
