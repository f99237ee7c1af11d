"""Frames of a video file by their times, with all bits of their numbers: OpenCV gives 8 of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.data.recordings.recording import import_library
from depthray.errors import DataError

AHEAD = 2.0  # seconds: what is at most as far ahead is reached by decoding on, without a search


class VideoFrames:
    """An open video, decoded forward from the last frame that was asked for where that is possible."""

    def __init__(self, path: Path, *, colour: bool) -> None:
        self._path, self._colour = path, colour
        try:
            self._file = import_library("av", what="a video").open(str(path))
            self._stream = self._file.streams.video[0]
        except _errors() as error:
            raise DataError(f"{path}: not a video that can be read: {error}") from None
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate
        self._tolerance = 0.5 / float(rate) if rate else 0.02
        self._frames: Iterator[Any] = iter(())
        self._frame: Any = None
        self._last = float("inf")  # seconds; the first frame is searched

    def at(self, seconds: float) -> NDArray[Any]:
        """The frame at a time: (H,W,3) uint8 RGB, or (H,W) uint16 of its first plane; a DataError without one."""
        try:
            frame = self._find(seconds)
        except _errors() as error:
            raise DataError(f"{self._path}: damaged at {seconds:.3f} s: {error}") from None
        if frame is None:
            raise DataError(f"{self._path}: no frame at {seconds:.3f} s; is the video cut off?")
        return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) if self._colour else self._first_plane(frame)

    def close(self) -> None:
        """Close the file."""
        self._frames = iter(())
        self._file.close()

    def _find(self, seconds: float) -> Any:
        if abs(seconds - self._last) <= self._tolerance:
            return self._frame  # once more, perhaps with its time rounded otherwise
        if not 0 < seconds - self._last <= AHEAD:
            begin = max(0, int((seconds - self._tolerance) / self._stream.time_base))
            self._file.seek(begin, stream=self._stream)
            self._frames = self._file.decode(self._stream)
        for frame in self._frames:
            self._frame, self._last = frame, float(frame.time or 0.0)
            if self._last >= seconds - self._tolerance:
                return frame if self._last <= seconds + self._tolerance else None
        self._last = float("inf")
        return None

    def _first_plane(self, frame: Any) -> NDArray[np.uint16]:
        if frame.format.components[0].bits <= 8:
            raise DataError(f"{self._path}: depth of {frame.format.name}, 8 bits: a picture of depth, not depth")
        plane = frame.planes[0]
        # Rows may have bytes at their end.
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : 2 * frame.width]
        return np.ascontiguousarray(rows).view("<u2")


@lru_cache
def _errors() -> tuple[type[Exception], ...]:
    errors = import_library("av.error", what="a video")
    return (errors.FFmpegError, OSError, ValueError, EOFError, IndexError)  # the last of files without a video
