"""Frames that are a few files each, for the forms whose layout is fixed: what differs between them is one function."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.sources import Frame
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.batch import Sample

Pixels = NDArray[Any]
Row = tuple[Frame, tuple[str, ...]]  # a frame, and its files by role, relative to the root
# Files of a frame by role, keys to read -> its arrays. Module functions, so that a source can be pickled.
Maps = Callable[[Mapping[str, Path], frozenset[str]], Mapping[str, Pixels]]


class FrameFiles:
    """A data set whose frames are files in known places. See `depthray.data.sources.Source`."""

    def __init__(
        self, root: Path, rows: Sequence[Row], *, roles: tuple[str, ...], keys: frozenset[str], maps: Maps, facts: str
    ) -> None:
        self._root, self._roles, self._maps, self._facts = root, roles, maps, facts
        self._files = [files for _, files in rows]
        self._stamps: NDArray[np.int64] | None = None  # (frames, roles, 2): bytes, time of change in ns
        self.keys = keys
        self.frames = [frame for frame, _ in rows]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the frames, how they are read, and the name and size of every file."""
        digest = sha256(self._facts.encode())
        stamps = np.empty((len(self._files), len(self._roles), 2), np.int64)
        for index, (frame, files) in enumerate(zip(self.frames, self._files, strict=True)):
            stamps[index] = [self._stamp(name) for name in files]
            digest.update(repr((frame, files, stamps[index, :, 0].tolist())).encode())
        self._stamps = stamps
        return digest.hexdigest()

    def read(self, index: int) -> Sample:
        """Read the files of one frame."""
        frame = self.frames[index]
        self._refuse_changed(index)
        places = {role: self._root / name for role, name in zip(self._roles, self._files[index], strict=True)}
        sample: dict[str, Any] = dict(self._maps(places, self.keys))
        size = sample["image"].shape[:2]
        for key, array in sample.items():
            if key != "intrinsics" and array.shape[:2] != size:
                other = f"{array.shape[1]}x{array.shape[0]}"
                raise DataError(f"{self._root}: frame '{frame.id}': {key} is {other}, but image {size[1]}x{size[0]}")
        sample |= {"id": frame.id, "scene": frame.scene, "source": frame.source}
        return cast("Sample", sample)

    def faults(self, index: int) -> list[str]:
        """None: what these forms mark as unmeasured is marked on purpose."""
        return []

    def _stamp(self, name: str) -> tuple[int, int]:
        try:
            status = os.stat(self._root / name)
        except OSError as error:
            raise unreadable(self._root / name, error) from None
        return status.st_size, status.st_mtime_ns

    def _refuse_changed(self, index: int) -> None:
        """Compare with what was there when the fingerprint was taken, if it was."""
        if self._stamps is None:
            return
        for name, stamp in zip(self._files[index], self._stamps[index], strict=True):
            if self._stamp(name) != tuple(stamp):
                raise DataError(f"{self._root / name}: changed since the data set was opened; start again")


def folder_of(root: str) -> Path:
    """A data set's root as the recipe names it; a DataError if it is empty or no such place."""
    if not root:
        raise DataError("data.root is empty: say where the data lies with --data PATH")
    if not Path(root).exists():
        raise DataError(f"{root} does not exist")
    return Path(root)


def unreadable(path: Path, error: OSError) -> DataError:
    """The DataError of a file that cannot be opened."""
    return DataError(f"{path}: {error.strerror or error}; the frame needs it: bring it back or remove the frame")


def read_bytes(path: Path) -> bytes:
    """What a file holds; a DataError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def read_text(path: Path) -> str:
    """A file as text; a DataError if it is none."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8: {error.reason}") from None


def decode(path: Path, flags: int) -> Pixels:
    """An image file -> (H,W[,3]) as OpenCV decodes it."""
    content = read_bytes(path)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise DataError(f"{path}: not a readable image ({len(content)} bytes); mend it or remove the frame")
    return pixels


def colour(path: Path) -> NDArray[np.uint8]:
    """An image file -> (H,W,3) uint8 RGB, as its pixels are stored."""
    pixels = decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels).astype(np.uint8, copy=False)


def grey(path: Path) -> NDArray[np.uint8]:
    """An image file -> (H,W) uint8."""
    return decode(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION).astype(np.uint8, copy=False)


def stored(path: Path) -> Pixels:
    """An image file -> (H,W[,C]) in the type it is stored in."""
    return decode(path, cv2.IMREAD_UNCHANGED)


def npy(path: Path) -> Pixels:
    """A .npy file -> its array."""
    content = read_bytes(path)
    try:
        array: Pixels = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise DataError(f"{path}: not a readable .npy file ({len(content)} bytes); mend it or remove it") from None
    return array


def pinhole(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float32]:
    """Focal lengths and principal point in pixels -> (3,3) float32 pinhole matrix."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)


def matrix(path: Path) -> NDArray[np.float32]:
    """A text file of nine numbers -> (3,3) float32 pinhole matrix in pixels."""
    words = read_text(path).split()
    try:
        values = np.array([float(word) for word in words], np.float32).reshape(3, 3)
    except ValueError:
        raise DataError(f"{path}: holds {len(words)} words, wanted the 9 numbers of a camera matrix") from None
    if not (np.isfinite(values).all() and values[0, 0] > 0 and values[1, 1] > 0):
        raise DataError(f"{path}: focal lengths must be positive and all 9 numbers finite")
    return values
