"""A recording in memory: messages in a list."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.data.recordings.messages import (
    CAMERA,
    COMPRESSED,
    IMAGE,
    TRANSFORMS,
    CameraMessage,
    CompressedMessage,
    ImageMessage,
    Link,
    Message,
    RecordedMessage,
    Topic,
    TransformsMessage,
)

KINDS = {ImageMessage: IMAGE, CompressedMessage: COMPRESSED, CameraMessage: CAMERA, TransformsMessage: TRANSFORMS}
MILLISECOND = 10**6
BASE = 1_700_000_000 * 10**9


class ListedRecording:
    """See `depthray.data.recordings.recording.Recording`; it is damaged before the message number `damaged`."""

    depth_encoding = scene = split = ""

    def __init__(
        self, messages: Sequence[tuple[str, int, Message]], *, name: str = "run", damaged: int | None = None
    ) -> None:
        self.path, self.name, self.damage = Path(f"{name}.bag"), name, ""
        self._messages, self._damaged = list(messages), damaged
        self.reads = 0

    def topics(self) -> list[Topic]:
        first = {topic: message for topic, _, message in reversed(self._messages)}
        return [
            Topic(topic, KINDS[type(message)], type(message).__name__, 0) for topic, message in sorted(first.items())
        ]

    def entries(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        for position, (topic, logged, message) in enumerate(self._messages[: self._damaged]):
            if topic in topics:
                yield RecordedMessage(topic, logged, position, message)
        self.damage = "cut off" if self._damaged is not None else ""

    def message(self, topic: str, position: Any) -> Message:
        self.reads += 1
        message: Message = self._messages[position][2]
        return message

    def close(self) -> None:
        pass

    def sizes(self, topics: Collection[str]) -> list[tuple[str, int]]:
        return [(self.path.name, len(self._messages))]


def image(pixels: NDArray[Any], encoding: str, stamp: int, *, frame: str = "camera") -> ImageMessage:
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    height, width = pixels.shape[:2]
    return ImageMessage(stamp, frame, encoding, height, width, data.size // height, False, data)


def depth(stamp: int, *, metres: float = 2.0, size: tuple[int, int] = (4, 6), frame: str = "camera") -> ImageMessage:
    return image(np.full(size, round(metres * 1000), np.uint16), "16UC1", stamp, frame=frame)


def colour(stamp: int, *, grey: int = 0, size: tuple[int, int] = (4, 6), frame: str = "camera") -> ImageMessage:
    return image(np.full((*size, 3), grey, np.uint8), "rgb8", stamp, frame=frame)


def camera(focal: float, *, size: tuple[int, int] = (4, 6), frame: str = "camera", **changes: Any) -> CameraMessage:
    matrix = (focal, 0.0, (size[1] - 1) / 2, 0.0, focal, (size[0] - 1) / 2, 0.0, 0.0, 1.0)
    return CameraMessage(1, frame, *size, "plumb_bob", (0.0,) * 5, matrix)._replace(**changes)


def place(parent: str, child: str, *numbers: float) -> TransformsMessage:
    """x, y, z and, unless it is none, a rotation as quaternion x, y, z, w."""
    return TransformsMessage(1, (Link(parent, child, numbers[:3], numbers[3:] or (0.0, 0.0, 0.0, 1.0)),))  # type: ignore[arg-type]


def two(
    colours: Sequence[int], depths: Sequence[int], *, lags: tuple[int, int] = (0, 0)
) -> list[tuple[str, int, Message]]:
    """Milliseconds of colour and depth images -> messages, recorded `lags` ms later."""
    messages: list[tuple[str, int, Message]] = [
        *(("/rgb/image", BASE + (time + lags[0]) * MILLISECOND, colour(BASE + time * MILLISECOND)) for time in colours),
        *(("/depth/image", BASE + (time + lags[1]) * MILLISECOND, depth(BASE + time * MILLISECOND)) for time in depths),
    ]
    return sorted(messages, key=lambda message: message[1])
