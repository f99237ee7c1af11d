"""Image files under one folder: found, read and decoded, with errors that name the file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.errors import DataError

Pixels = NDArray[Any]
Stamp = tuple[int, int]  # size in bytes, time of change in ns


class Files:
    """Files whose names are relative to one folder; `hint` ends the message about one that is not there."""

    def __init__(self, root: Path, *, hint: str) -> None:
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

    def load(self, name: str, flags: int = cv2.IMREAD_UNCHANGED) -> Pixels:
        """The pixels of an image or .npy file as they are stored, colours in OpenCV's order."""
        content = self._bytes(name)
        pixels = _npy(content) if name.endswith(".npy") else _decode(content, flags)
        if pixels is None:
            raise DataError(f"{self.path(name)}: not a readable image ({len(content)} bytes); mend it or drop its row")
        return pixels

    def colour(self, name: str) -> NDArray[np.uint8]:
        """Name of a file -> (H,W,3) uint8 RGB."""
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

    def depth(self, name: str, *, encoding: str) -> NDArray[np.float32]:
        """Name of a file -> (H,W) float32 metres, in an encoding the recipe declares."""
        return encodings.decode(self.load(name), encoding, where=str(self.path(name)))

    def fixed_depth(self, name: str, *, encoding: str) -> NDArray[np.float32]:
        """Name of a file -> (H,W) float32 metres, in the encoding that the form of the data set fixes."""
        pixels, known = self.load(name), encodings.ENCODINGS[encoding]
        if pixels.dtype.name not in known.dtypes:
            raise DataError(
                f"{self.path(name)}: depth is stored as {pixels.dtype.name}, but in this form of data set it is "
                f"{' or '.join(known.dtypes)}, {known.about}; name the form it really has with data.source"
            )
        return encodings.decode(pixels, encoding, where=str(self.path(name)))

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
        if name in self._stamps and self._stamp(name) != self._stamps[name]:
            raise DataError(f"{self.path(name)}: changed since the data set was opened; start again on settled data")
        return content


def refuse_unlike_sizes(image: Pixels, other: Pixels, *, word: str, path: Path) -> None:
    """Refuse a map of another height and width than the image; `word` is what the map is called."""
    if other.shape[:2] != image.shape[:2]:
        (height, width), (rows, columns) = image.shape[:2], other.shape[:2]
        raise DataError(
            f"{path}: size mismatch, {word} is {columns}x{rows} but rgb is {width}x{height}; "
            "resize one of them (depth with nearest neighbour)"
        )


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
