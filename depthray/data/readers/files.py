"""Files under one folder: found, read and decoded, with errors that name the file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError
from depthray.storage import remote

if TYPE_CHECKING:
    from depthray.config.sections import Data

Pixels = NDArray[Any]
Stamp = tuple[int, int]  # size in bytes, time of change in ns

HINT = "`depthray data check` lists every bad file"
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION


class Files:
    """Files whose names are relative to one folder; `hint` ends the message about one that is not there."""

    def __init__(self, root: Path, *, hint: str = HINT) -> None:
        self._root = root
        self._hint = hint
        self._stamps: dict[str, Stamp] = {}

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self._root / name

    def size(self, name: str) -> int:
        """Bytes of a file. From now on it must stay as it is."""
        self._stamps[name] = self._stamp(name)
        return self._stamps[name][0]

    def unchanged(self, name: str) -> Path:
        """Where a file lies; a DataError if it is not what it was when its size was taken, if that was done."""
        if name in self._stamps and self._stamp(name) != self._stamps[name]:
            raise DataError(f"{self.path(name)}: changed since the data set was opened; start again on settled data")
        return self.path(name)

    def load(self, name: str, flags: int = cv2.IMREAD_UNCHANGED) -> Pixels:
        """The pixels of an image or .npy file as they are stored, colours in OpenCV's order."""
        content, is_npy = self._bytes(name), name.endswith(".npy")
        pixels = _npy(content) if is_npy else _decode(content, flags)
        if pixels is None:
            kind = ".npy file" if is_npy else "image"
            raise DataError(f"{self.path(name)}: not a readable {kind} ({len(content)} bytes); mend it or drop its row")
        return pixels

    def colour(self, name: str) -> NDArray[np.uint8]:
        """Name of a file -> (H,W,3) uint8 RGB, as its pixels are stored."""
        pixels = self.load(name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise DataError(f"{self.path(name)}: colour is {pixels.dtype} {pixels.shape}, wanted uint8 (H, W, 3)")
        if name.endswith(".npy"):  # as RGB; only OpenCV gives BGR
            return pixels
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels).astype(np.uint8, copy=False)

    def ids(self, name: str, *, key: str) -> Pixels:
        """Name of a file -> (H,W) whole numbers as stored; `key` is what they are, for errors."""
        pixels = self.load(name)
        if pixels.ndim != 2 or pixels.dtype.kind not in "ub":
            raise DataError(f"{self.path(name)}: {key} is {pixels.dtype} {pixels.shape}, wanted (H, W) whole numbers")
        return pixels

    def camera(self, name: str) -> NDArray[np.float32]:
        """Name of a text file of nine numbers -> (3,3) float32 pinhole matrix in pixels."""
        path = self.unchanged(name)
        words = read_text(path).split()
        try:
            matrix = np.array([float(word) for word in words], np.float32).reshape(3, 3)
        except ValueError:
            raise DataError(f"{path}: holds {len(words)} words, wanted the 9 numbers of a camera matrix") from None
        return check_camera(matrix, where=str(path))

    def _stamp(self, name: str) -> Stamp:
        try:
            status = os.stat(self.path(name))
        except OSError as error:
            raise self._missing(name, error) from None
        return status.st_size, status.st_mtime_ns

    def _missing(self, name: str, error: OSError) -> DataError:
        return DataError(f"{self.path(name)}: {error.strerror or error}; {self._hint}")

    def _bytes(self, name: str) -> bytes:
        try:
            content = self.path(name).read_bytes()
        except OSError as error:
            raise self._missing(name, error) from None
        self.unchanged(name)  # afterwards, so that a change while it was read is noticed too
        return content


def data_root(section: Data) -> Path:
    """Where the data set of a section lies; a DataError if it does not say, or there is nothing."""
    if not section.root:
        raise DataError("data.root is empty: say where the data lies with --data PATH")
    if remote.is_remote(section.root):
        raise DataError(
            f"{section.root}: data.source={section.source} is read from a disk only; pack it with "
            "`depthray data pack`, copy the shards there, and give data.source=shards"
        )
    root = Path(section.root)
    try:
        os.stat(root)
    except OSError as error:
        raise DataError(f"{root}: {error.strerror or error}; say where the data lies with --data PATH") from None
    return root


def read_text(path: Path, *, kind: str = "text", hint: str = "") -> str:
    """A file as text; a DataError if it is none. `kind` is what it should be, `hint` helps where it is not there."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}{hint and '; '}{hint}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a {kind} in UTF-8: {error.reason}") from None


def pinhole(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float32]:
    """Focal lengths and principal point in pixels -> (3,3) float32 pinhole matrix."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)


def check_camera(matrix: NDArray[np.float32], *, where: str) -> NDArray[np.float32]:
    """(3,3) pinhole matrix -> itself; a DataError if no camera can be like that."""
    if not (np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise DataError(f"{where}: focal lengths must be positive and all numbers of the camera finite")
    return matrix


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
