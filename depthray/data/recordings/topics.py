"""Which topics of a recording are colour, depth, their cameras and their places: named by the user, or found."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import takewhile
from typing import NamedTuple

from depthray.data.recordings import pixels
from depthray.data.recordings.messages import (
    CAMERA,
    COMPRESSED,
    IMAGE,
    TRANSFORMS,
    CompressedMessage,
    ImageMessage,
    Pictures,
    Topic,
)
from depthray.data.recordings.recording import Recording
from depthray.errors import DataError, did_you_mean

TRANSPORT = re.compile(r"/(compressed|compressedDepth|theora|ffmpeg)$")
WORD_ENDS = re.compile(r"[/_\-. ]+")
COLOUR_WORDS = frozenset({"rgb", "color", "colour"})
ALIGNED_WORDS = frozenset({"aligned", "registered"})
# What has colours or greys, but is no picture of the scene as a camera sees it.
OTHER_WORDS = frozenset(
    {"infra", "infra1", "infra2", "infrared", "ir", "mask", "masks", "label", "labels", "semantic", "segmentation"}
    | {"disparity", "confidence", "debug", "overlay", "annotated", "detections", "visualization", "depth"}
)


class ChosenTopics(NamedTuple):
    """The topics of one colour and one depth camera."""

    colour: str
    depth: str
    colour_camera: str  # "" = none
    depth_camera: str
    transforms: tuple[str, ...]

    @property
    def all(self) -> set[str]:
        """Their names."""
        return {self.colour, self.depth, *self.cameras, *self.transforms}

    @property
    def cameras(self) -> set[str]:
        """The names of those that have cameras."""
        return {self.colour_camera, self.depth_camera} - {""}


def choose(recording: Recording, *, colour: str = "", depth: str = "") -> ChosenTopics:
    """The topics of a recording, those that are not named being found; a DataError where none or several fit."""
    topics = {topic.name: topic for topic in recording.topics()}
    images = {name for name, topic in topics.items() if topic.kind in (IMAGE, COMPRESSED)}
    if not images:
        listed = ", ".join(sorted(f"{name} ({topic.type})" for name, topic in topics.items())) or "none"
        raise DataError(f"{recording.path}: no topics of images; its topics: {listed}")
    for key, name in (("colour", colour), ("depth", depth)):
        if name and name not in images:
            raise DataError(
                f"{recording.path}: data.recording.{key}={name} is no topic of images{did_you_mean(name, images)}"
            )
    first = _first_images(recording, images)
    depth = depth or _only(
        recording, "depth", {name: _grade_depth(name, image) for name, image in first.items()}, first
    )
    colour = colour or _only(
        recording, "colour", {name: _grade_colour(name, image, depth) for name, image in first.items()}, first
    )
    transforms = sorted(name for name, topic in topics.items() if topic.kind == TRANSFORMS)
    return ChosenTopics(
        colour, depth, _camera_of(colour, topics), _camera_of(depth, topics), transforms=tuple(transforms)
    )


def is_rectified(topic: str) -> bool:
    """Whether a topic of images says that lens distortion was removed, as `image_rect_color` does."""
    return "rect" in WORD_ENDS.split(_base(topic).rpartition("/")[2])


def _first_images(recording: Recording, images: Collection[str]) -> dict[str, Pictures]:
    """The first message of each topic that has one."""
    first: dict[str, Pictures] = {}
    for entry in recording.entries(images):
        if isinstance(entry.message, ImageMessage | CompressedMessage):
            first.setdefault(entry.topic, entry.message)
        if len(first) == len(images):
            break
    if not first:
        damaged = f", {recording.damage}" if recording.damage else ""
        raise DataError(f"{recording.path}: not one image can be read{damaged}; remove it or repair it")
    return first


def _grade_depth(name: str, image: Pictures) -> tuple[int, ...] | None:
    """How well a topic fits as depth, the lowest best; None where it does not."""
    words = _words(name)
    if not pixels.is_depth(image) or "disparity" in words:
        return None
    if pixels.encoding_of(image) == "mono16" and "depth" not in {word.rstrip("s") for word in words}:
        return None  # infrared
    return (not ALIGNED_WORDS & words, isinstance(image, CompressedMessage))


def _grade_colour(name: str, image: Pictures, depth: str) -> tuple[int, ...] | None:
    """How well a topic fits as the colour of a topic of depth, the lowest best; None where it does not."""
    words = _words(name)
    if pixels.is_depth(image) or (OTHER_WORDS & words and not COLOUR_WORDS & words):
        return None
    return (
        pixels.encoding_of(image) in pixels.GREYS,
        -_common_words(name, depth),  # of the same camera, where there are several
        not COLOUR_WORDS & words,
        isinstance(image, CompressedMessage),
        not is_rectified(name),
    )


def _only(
    recording: Recording, key: str, grades: Mapping[str, tuple[int, ...] | None], first: Mapping[str, Pictures]
) -> str:
    """The topic with the best grade; a DataError where there is none, or more than one."""
    fitting = {name: grade for name, grade in grades.items() if grade is not None}
    best = sorted(name for name, grade in fitting.items() if grade == min(fitting.values()))
    if len(best) == 1:
        return best[0]
    listed = ", ".join(f"{name} ({pixels.encoding_of(image)})" for name, image in sorted(first.items()))
    what = f"several topics may be {key}: {', '.join(best)}" if best else f"no topic of {key}; of images: {listed}"
    raise DataError(f"{recording.path}: {what}; name it: data.recording.{key}={(best or sorted(first))[0]}")


def _words(name: str) -> set[str]:
    return set(WORD_ENDS.split(name.lower()))


def _base(topic: str) -> str:
    """The topic of which a compressed one is a transport."""
    return TRANSPORT.sub("", topic)


def _common_words(one: str, other: str) -> int:
    """The number of words with which both names begin: /left/camera of /left/camera/rgb and /left/camera/depth."""
    pairs = zip(WORD_ENDS.split(one.strip("/")), WORD_ENDS.split(other.strip("/")), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _camera_of(topic: str, topics: Mapping[str, Topic]) -> str:
    """The topic of the camera of a topic of images: its neighbour; "" where there is none."""
    above = _base(topic).rpartition("/")[0]
    # The second is that of the files of librealsense: .../image/data and .../info/camera_info.
    names = (f"{above}/camera_info", f"{above.rpartition('/')[0]}/info/camera_info")
    return next((name for name in names if name in topics and topics[name].kind == CAMERA), "")
