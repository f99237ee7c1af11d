"""Videos and cameras in, by OpenCV; depth as a video out, in one fixed colour scale.

A frame has the seconds at which it is shown (of a video) or was taken (of a camera, since its first frame).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self
from uuid import uuid4

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError, ResourceError
from depthray.imaging import sheets
from depthray.imaging.photos import LIMITS, PhotoLimits, check_size
from depthray.imaging.sheets import ColourScale, RgbImage
from depthray.imaging.suffixes import VIDEOS

CAMERA = re.compile(r"camera:(\d{1,3})")
USUAL_FPS = 30.0  # where a file does not say, or says what cannot be
# FFmpeg's lines about damaged files say less than ours. OpenCV reads this once, with the first video of the process.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class VideoFrame(NamedTuple):
    """One frame of a video or a camera."""

    number: int  # from 0
    seconds: float
    rgb: RgbImage  # (H,W,3) uint8, upright


class Video:
    """An open video file or camera. Made by `open_video`; read once, from its first frame to its last."""

    def __init__(self, name: str, capture: cv2.VideoCapture, *, is_camera: bool, limits: PhotoLimits) -> None:
        self.name, self.is_camera = name, is_camera
        self._capture, self._limits = capture, limits
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0.1 <= fps <= 1000 else USUAL_FPS
        # What the header claims; a camera has no number of frames.
        self.length = 0 if is_camera else max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[VideoFrame]:
        number, last, started = 0, -1.0, 0.0
        while (rgb := self._read()) is not None:
            started = started or time.monotonic()
            shown = time.monotonic() - started if self.is_camera else self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            # A file without usable time stamps gets those of its frame rate.
            last = shown if shown > last else max(last, 0.0) + 1 / self.fps
            yield VideoFrame(number, last, rgb)
            number += 1

    def sample(self, count: int) -> list[RgbImage]:
        """Up to `count` frames spread over a file, or the first frame of a camera; reading begins anew after it."""
        if self.is_camera:
            first = self._read()
            return [] if first is None else [first]
        found = []
        for index in sorted({round(part * max(self.length - 1, 0)) for part in np.linspace(0, 1, count + 2)[1:-1]}):
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            if (rgb := self._read()) is not None:
                found.append(rgb)
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
        return found

    def _read(self) -> RgbImage | None:
        """The next frame, (H,W,3) uint8 RGB; None at the end."""
        done, bgr = self._capture.read()
        if not done or bgr is None:
            return None
        check_size(bgr.shape[1], bgr.shape[0], where=self.name, limits=self._limits)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path of the command line is a camera, `camera:0`, or a video by its suffix."""
    text = os.fspath(path)
    return bool(CAMERA.fullmatch(text)) or Path(text).suffix.lower() in VIDEOS


@contextmanager
def open_video(path: str | os.PathLike[str], *, limits: PhotoLimits = LIMITS) -> Iterator[Video]:
    """A video file, or the camera that `camera:0` names. OpenCV applies the rotation that a phone recorded.

    Raises DataError for a file that is no video, ResourceError for a camera that does not answer.
    """
    text = os.fspath(path)
    camera = CAMERA.fullmatch(text)
    if not camera and not Path(text).is_file():
        raise DataError(f"{text}: no such file")
    capture = cv2.VideoCapture(int(camera[1])) if camera else cv2.VideoCapture(text)
    try:
        if not capture.isOpened():
            if camera:
                raise ResourceError(f"{text}: no such camera, or another program uses it")
            raise DataError(f"{text}: not a video that OpenCV reads; convert it, as with ffmpeg -i IN OUT.mp4")
        if camera:
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else each frame is as old as the network is slow
        yield Video(text, capture, is_camera=bool(camera), limits=limits)
    finally:
        capture.release()


class DepthVideo:
    """Writes depth as an MP4 in one fixed colour scale, with a colour bar; its file appears when it is complete."""

    def __init__(self, path: Path, *, fps: float, scale: ColourScale, unit: str = " m") -> None:
        self.path, self.fps, self.scale, self.unit = path, fps, scale, unit
        self._partial = path.with_name(f".{path.stem}-{uuid4().hex[:8]}{path.suffix}")
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()
            # An interrupted video is one of fewer frames; after an error nothing is left.
            if kind is None or issubclass(kind, KeyboardInterrupt):
                os.replace(self._partial, self.path)
        self._partial.unlink(missing_ok=True)

    def write(self, depth: NDArray[np.float32]) -> None:
        """Add a frame of (H,W) metres; all frames have the size of the first."""
        coloured = sheets.colour_depth(depth, near=self.scale.near, far=self.scale.far)
        painted = sheets.add_scale(coloured, self.scale, unit=self.unit)
        # MPEG-4 has even sides; a repeated line looks better than one cut off.
        odd = (painted.shape[0] % 2, painted.shape[1] % 2)
        frame = cv2.copyMakeBorder(painted[..., ::-1], 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE)
        if self._writer is None:
            self._writer = self._open((frame.shape[1], frame.shape[0]))
        self._writer.write(frame)

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        # MPEG-4 part 2: every build of OpenCV writes it, which is not so of H.264.
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(os.fspath(self._partial), fourcc, round(self.fps, 3), size)
        if not writer.isOpened():
            raise ResourceError(f"{self.path}: cannot be written; choose another --out, or --format png")
        return writer
