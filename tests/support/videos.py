"""Small videos for tests, written by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import depthray.imaging.video  # noqa: F401 - sets how much FFmpeg prints, which OpenCV reads only once


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], *, fps: float = 10.0) -> Path:
    """Frames (H,W,3) uint8 RGB of even sides -> an MPEG-4 video, or VP8, which browsers play, in a .webm file."""
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter.fourcc(*("VP80" if path.suffix == ".webm" else "mp4v"))
    writer = cv2.VideoWriter(str(path), codec, fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def grey_frames(count: int, size: tuple[int, int] = (48, 64)) -> list[NDArray[np.uint8]]:
    """Frames (H,W,3) that are brighter from one to the next: frame i has the value 20 * i."""
    return [np.full((*size, 3), 20 * index, np.uint8) for index in range(count)]
