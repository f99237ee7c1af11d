"""Scans of ScanNet, `.sens`: a stream of JPEG and zlib-compressed depth, with both cameras at its beginning."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.recordings.containers.image_series import (
    COLOUR,
    DEPTH,
    ImageSeries,
    SeriesImage,
    pinhole_camera,
)
from depthray.data.recordings.messages import CameraMessage
from depthray.errors import DataError

VERSION = 4
ROOM = re.compile(r"(scene\d{4})_\d{2}")  # of the scans of a room, which are one scene
RATE = 30  # frames a second of the sensor; times in the files may be 0
CAMERAS = struct.Struct("<64f")  # four matrices: intrinsics and place of colour, then of depth
FORMATS = struct.Struct("<iiIIIIfQ")  # compression of colour and depth, widths and heights, steps a metre, frames
FRAME = struct.Struct("<16fQQQQ")  # place, times of colour and depth, bytes of colour and depth
COLOUR_FORMATS = {1: "png", 2: "jpeg"}
DEPTH_FORMATS = {0: "raw", 1: "zlib"}


class _Header(NamedTuple):
    colour: CameraMessage
    depth: CameraMessage
    colour_format: str
    depth_format: str
    steps: float
    frames: int


class ScannetStream(ImageSeries[IO[bytes]]):
    """A scan. See `Recording`."""

    def __init__(self, path: Path, name: str) -> None:
        try:
            with path.open("rb") as file:
                header = _read_header(file)
                images, cut = _list_images(file, header)
        except (OSError, struct.error, ValueError) as error:
            raise DataError(f"{path}: not a scan of ScanNet: {error}") from None
        self._header = header
        super().__init__(path, name, images, colour=header.colour_format, depth="16UC1")
        self.depth_encoding, self.damage = f"uint16/{header.steps:g}", cut
        room = ROOM.fullmatch(path.stem)
        self.scene = room[1] if room else ""

    def open_handle(self) -> IO[bytes]:
        """Open the file."""
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror}") from None

    def close_handle(self, handle: IO[bytes]) -> None:
        """Close the file."""
        handle.close()

    def read_image(self, image: SeriesImage) -> NDArray[Any]:
        """The bytes of a JPEG, or (h,w) uint16 as stored."""
        at, size = image.place
        with self.opened() as file:
            file.seek(at)
            content = file.read(size)
        if image.topic == COLOUR:
            return np.frombuffer(content, np.uint8)
        try:
            raw = zlib.decompress(content) if self._header.depth_format == "zlib" else content
            return np.frombuffer(raw, "<u2").reshape(self._header.depth.height, self._header.depth.width)
        except (zlib.error, ValueError) as error:
            raise DataError(f"{self.path}: depth at byte {at} is damaged: {error}") from None


def _read_header(file: IO[bytes]) -> _Header:
    version, length = struct.unpack("<IQ", file.read(12))
    if version != VERSION or length > 1000:
        raise ValueError(f"version {version}, known is {VERSION}")
    file.read(length)  # the name of the sensor
    matrices = np.array(CAMERAS.unpack(file.read(CAMERAS.size))).reshape(4, 4, 4)
    colour_format, depth_format, *sizes, steps, frames = FORMATS.unpack(file.read(FORMATS.size))
    if colour_format not in COLOUR_FORMATS or depth_format not in DEPTH_FORMATS or not steps > 0:
        raise ValueError(f"compression {colour_format} of colour, {depth_format} of depth")
    width, height, depth_width, depth_height = sizes
    colour = _camera((height, width), matrices[0])
    depth = _camera((depth_height, depth_width), matrices[2])
    return _Header(colour, depth, COLOUR_FORMATS[colour_format], DEPTH_FORMATS[depth_format], steps, frames)


def _camera(size: tuple[int, int], matrix: NDArray[np.float64]) -> CameraMessage:
    return pinhole_camera(size, (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2]))


def _list_images(file: IO[bytes], header: _Header) -> tuple[list[SeriesImage], str]:
    """The images of all frames, and why there are not all of them; "" where there are."""
    end = os.fstat(file.fileno()).st_size
    images: list[SeriesImage] = []
    for number in range(header.frames):
        head = file.read(FRAME.size)
        if len(head) < FRAME.size:
            return images, f"cut off at frame {number} of {header.frames}"
        *_, colour, depth = FRAME.unpack(head)
        at = file.tell()
        if at + colour + depth > end:
            return images, f"cut off at frame {number} of {header.frames}"
        time = number * 10**9 // RATE
        images.append(SeriesImage(COLOUR, time, (at, colour), header.colour))
        images.append(SeriesImage(DEPTH, time, (at + colour, depth), header.depth))
        file.seek(at + colour + depth)
    return images, ""
