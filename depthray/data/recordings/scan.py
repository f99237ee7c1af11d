"""One pass over the messages of a recording: the times of its images, its cameras and where they are. No pixels."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from depthray.data.recordings import pixels
from depthray.data.recordings.clocks import Stamped
from depthray.data.recordings.messages import (
    CameraMessage,
    CompressedMessage,
    ImageMessage,
    Link,
    Pictures,
    RecordedMessage,
    TransformsMessage,
)
from depthray.data.recordings.recording import Recording
from depthray.data.recordings.topics import ChosenTopics
from depthray.errors import DataError

ROUNDING = 1e-6  # by which a transform that is repeated may differ


class ImageStream(NamedTuple):
    """The images of a topic."""

    images: list[Stamped]  # `camera` is a number of `cameras`
    frame: str  # coordinate frame of the first
    encoding: str  # likewise
    unit: str  # encoding of depth that it states; "" = none
    cameras: list[CameraMessage]  # of its images, in the order in which they came


class ScannedRecording(NamedTuple):
    """What there is in a recording."""

    colour: ImageStream
    depth: ImageStream
    links: list[Link]
    moving: set[str]  # children of transforms that change
    unstamped: int  # images without a time of their own


class _Scanner:
    def __init__(self, chosen: ChosenTopics, *, by_recorder: bool) -> None:
        self._by_recorder = by_recorder
        self._camera_of = {chosen.colour: chosen.colour_camera, chosen.depth: chosen.depth_camera}
        self._images: dict[str, list[Stamped]] = {chosen.colour: [], chosen.depth: []}
        self._first: dict[str, Pictures] = {}
        self._cameras: dict[str, list[CameraMessage]] = {name: [] for name in chosen.cameras}
        self._now: dict[str, int] = {}  # number of the camera that was recorded last
        self.unstamped: Counter[str] = Counter()
        self.links: dict[str, Link] = {}
        self.moving: set[str] = set()

    def add(self, entry: RecordedMessage) -> None:
        """Note a message."""
        message = entry.message
        if isinstance(message, ImageMessage | CompressedMessage):
            self._first.setdefault(entry.topic, message)
            if not message.stamp and not self._by_recorder:
                self.unstamped[entry.topic] += 1
                return
            time = entry.logged if self._by_recorder else message.stamp
            # The first camera where an image was recorded before any.
            camera = self._now.get(self._camera_of[entry.topic], 0)
            self._images[entry.topic].append(Stamped(time, entry.logged, entry.position, camera))
        elif isinstance(message, CameraMessage):
            known, camera_as_such = self._cameras[entry.topic], message._replace(stamp=0)
            if camera_as_such not in known:
                known.append(camera_as_such)
            self._now[entry.topic] = known.index(camera_as_such)
        elif isinstance(message, TransformsMessage):
            for link in message.links:
                self._add_link(link)

    def stream(self, topic: str) -> ImageStream:
        """The images of a topic, of which there is at least one."""
        first = self._first[topic]
        cameras = self._cameras.get(self._camera_of[topic], [])
        encoding, unit = pixels.encoding_of(first), pixels.stated_unit(first)
        return ImageStream(self._images[topic], first.frame.lstrip("/"), encoding, unit, cameras)

    def missing(self) -> list[str]:
        """The topics without images."""
        return [topic for topic, images in self._images.items() if not images]

    def _add_link(self, link: Link) -> None:
        known = self.links.setdefault(link.child, link)
        numbers = zip((*known.translation, *known.rotation), (*link.translation, *link.rotation), strict=True)
        if known.parent != link.parent or any(abs(one - other) > ROUNDING for one, other in numbers):
            self.moving.add(link.child)


def scan(recording: Recording, chosen: ChosenTopics, *, by_recorder: bool) -> ScannedRecording:
    """The images, cameras and transforms of a recording; a DataError where images are missing or have no times."""
    scanner = _Scanner(chosen, by_recorder=by_recorder)
    for entry in recording.entries(chosen.all):
        scanner.add(entry)
    missing = scanner.missing()
    if missing and scanner.unstamped[missing[0]]:
        raise DataError(
            f"{recording.path}: the images of {missing[0]} have no time of their own; data.recording.clock=recorder "
            "takes when they were recorded"
        )
    if missing:
        damaged = f" before it is damaged ({recording.damage})" if recording.damage else ""
        raise DataError(f"{recording.path}: no images of {missing[0]}{damaged}")
    links = list(scanner.links.values())
    return ScannedRecording(
        scanner.stream(chosen.colour), scanner.stream(chosen.depth), links, scanner.moving, scanner.unstamped.total()
    )
