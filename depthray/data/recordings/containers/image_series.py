"""Recordings whose images lie in files, an archive or a stream, with times that are known before they are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.recordings.messages import (
    CAMERA,
    COMPRESSED,
    CameraMessage,
    CompressedMessage,
    ImageMessage,
    Message,
    RecordedMessage,
    Topic,
)
from depthray.data.recordings.recording import Handle, RecordedFile
from depthray.errors import DataError

COLOUR, DEPTH = "/rgb/image", "/depth/image"
CAMERAS = {COLOUR: "/rgb/camera_info", DEPTH: "/depth/camera_info"}
START = 10**9  # nanoseconds that are added to times, which may begin at 0: 0 is for images without a time


class SeriesImage(NamedTuple):
    """An image of a series."""

    topic: str  # COLOUR or DEPTH
    time: int  # nanoseconds
    place: Any  # a name, or a position, by which it is read
    camera: CameraMessage | None = None


class ImageSeries(RecordedFile[Handle], Generic[Handle]):
    """A series of colour and one of depth. See `Recording`; a kind of file says how an image is read."""

    def __init__(
        self, path: Path, name: str, images: Sequence[SeriesImage], *, colour: str = "jpeg", depth: str = "16UC1; png"
    ) -> None:
        super().__init__(path, name)
        # As of compressed messages; "16UC1" and "32FC1" alone are plain pixels.
        self._images, self.formats = images, {COLOUR: colour, DEPTH: depth}
        if not images:
            raise DataError(f"{path}: no images")

    def topics(self) -> list[Topic]:
        """Colour, depth and their cameras."""
        counts = {topic: sum(image.topic == topic for image in self._images) for topic in (COLOUR, DEPTH)}
        cameras = sorted({CAMERAS[image.topic] for image in self._images if image.camera is not None})
        found = [Topic(topic, COMPRESSED, self.formats[topic], count) for topic, count in counts.items() if count]
        return [*found, *(Topic(name, CAMERA, "camera", 1) for name in cameras)]

    def entries(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        """The images in the order of their list, without pixels, each after its camera where that is another one."""
        last: dict[str, CameraMessage] = {}
        for position, image in enumerate(self._images):
            camera = CAMERAS[image.topic]
            if camera in topics and image.camera is not None and last.get(camera) != image.camera:
                last[camera] = image.camera
                yield RecordedMessage(camera, image.time, position, image.camera)
            if image.topic in topics:
                yield RecordedMessage(image.topic, image.time, position, self._message(image, np.zeros(0, np.uint8)))

    def message(self, topic: str, position: Any) -> Message:
        """The image at a position."""
        image = self._images[position]
        return self._message(image, self.read_image(image))

    def read_image(self, image: SeriesImage) -> NDArray[Any]:
        """The bytes of an image's file, or its pixels where its format is plain; a DataError where it is not there."""
        raise NotImplementedError

    def _message(self, image: SeriesImage, content: NDArray[Any]) -> Message:
        stamp, form = START + image.time, self.formats[image.topic]
        if ";" in form or image.topic == COLOUR:
            return CompressedMessage(stamp, "", form, content)
        height, width = content.shape if content.ndim == 2 else (0, 0)
        data = np.ascontiguousarray(content).view(np.uint8).reshape(-1)
        return ImageMessage(stamp, "", form, height, width, data.size // max(height, 1), False, data)


class FolderSeries(ImageSeries[None]):
    """A series of files in a folder."""

    def open_handle(self) -> None:
        """Nothing is opened: each image is a file."""

    def close_handle(self, handle: None) -> None:
        """Nothing is open."""

    def read_image(self, image: SeriesImage) -> NDArray[Any]:
        """The bytes of an image's file."""
        path = self.path / image.place
        try:
            return np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None

    def files(self, topics: Collection[str]) -> list[Path]:
        """The files of the images of some topics."""
        return [self.path / image.place for image in self._images if image.topic in topics]


def pinhole_camera(
    size: tuple[int, int],
    focal: tuple[float, float],
    centre: tuple[float, float],
    *,
    distortion: tuple[float, ...] = (),
    frame: str = "",
) -> CameraMessage:
    """(H,W), focal lengths and principal point in pixels -> a camera"""
    matrix = (focal[0], 0.0, centre[0], 0.0, focal[1], centre[1], 0.0, 0.0, 1.0)
    return CameraMessage(1, frame, *size, "plumb_bob" if distortion else "", distortion, matrix)
