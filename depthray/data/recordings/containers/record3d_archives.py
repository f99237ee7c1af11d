"""Captures of the app Record3D, `.r3d`: a ZIP archive with JPEG, and depth in float32 metres compressed by LZFSE."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from depthray.data.recordings.recording import import_library
from depthray.errors import DataError

METADATA = "metadata"
FOLDER = "rgbd"
FPS = 60  # of captures that do not say


class Record3dArchive(ImageSeries[zipfile.ZipFile]):
    """A capture. See `Recording`."""

    def __init__(self, path: Path, name: str) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                facts = json.loads(archive.read(METADATA))
                names = set(archive.namelist())
            self._depth_size, images = _images(facts, names)
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError) as error:
            raise DataError(f"{path}: not a capture of Record3D: {error}") from None
        super().__init__(path, name, images, depth="32FC1")

    def open_handle(self) -> zipfile.ZipFile:
        """Open the archive."""
        try:
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: {error}") from None

    def close_handle(self, handle: zipfile.ZipFile) -> None:
        """Close the archive."""
        handle.close()

    def read_image(self, image: SeriesImage) -> NDArray[Any]:
        """The bytes of a JPEG, or (h,w) float32 metres."""
        try:
            with self.opened() as archive:
                content = archive.read(image.place)
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: {image.place} cannot be read: {error}") from None
        if image.topic == COLOUR:
            return np.frombuffer(content, np.uint8)
        library = import_library("liblzfse", what="a capture of Record3D")
        try:
            return np.frombuffer(library.decompress(content), "<f4").reshape(self._depth_size)
        except (library.error, ValueError) as error:
            raise DataError(f"{self.path}: {image.place} is damaged: {error}") from None


def _images(facts: Mapping[str, Any], names: set[str]) -> tuple[tuple[int, int], list[SeriesImage]]:
    """The metadata of a capture -> height and width of depth, and the images."""
    height, width = int(facts["h"]), int(facts["w"])
    depth_size = (int(facts.get("dh", 256)), int(facts.get("dw", 192)))
    count = sum(name.startswith(f"{FOLDER}/") and name.endswith(".jpg") for name in names)
    times = facts.get("frameTimestamps") or [number / float(facts.get("fps") or FPS) for number in range(count)]
    each = facts.get("perFrameIntrinsicCoeffs") or []
    images = []
    for number, seconds in enumerate(times[:count]):
        if each:
            fx, fy, cx, cy = (float(part) for part in each[number][:4])
        else:  # a matrix, column by column
            matrix = np.array(facts["K"], np.float64).reshape(3, 3).T
            fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        time = round(float(seconds) * 10**9)
        colour = pinhole_camera((height, width), (fx, fy), (cx, cy))
        for topic, suffix, lens in ((COLOUR, "jpg", colour), (DEPTH, "depth", _smaller(colour, depth_size))):
            if f"{FOLDER}/{number}.{suffix}" in names:
                images.append(SeriesImage(topic, time, f"{FOLDER}/{number}.{suffix}", lens))
    return depth_size, images


def _smaller(camera: CameraMessage, size: tuple[int, int]) -> CameraMessage:
    """The camera of the same view with fewer pixels; pixel centres are at whole numbers."""
    down, across = size[0] / camera.height, size[1] / camera.width
    fx, fy, cx, cy = (camera.matrix[at] for at in (0, 4, 2, 5))
    centre = ((cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5)
    return pinhole_camera(size, (fx * across, fy * down), centre)
