"""Bags of ROS 1 and ROS 2, read by the library rosbags."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from depthray.data.recordings import ros_messages
from depthray.data.recordings.messages import Message, RecordedMessage, Topic
from depthray.data.recordings.recording import RecordedFile, import_library
from depthray.errors import DataError

NEAR = 5 * 10**9  # nanoseconds: a message within them of the last one is reached by reading on, without a search
REMEDY = {
    ros_messages.ROS1: "was it closed? `rosbag reindex` repairs one that was not, else remove it",
    ros_messages.ROS2: "was it closed? `ros2 bag reindex` repairs one that was not, else remove it",
}

Position = tuple[int, int]  # nanoseconds, and which of the topic's messages of this time


class _Cursor:
    """The messages of a topic from some time on, read one after the other."""

    def __init__(self, reader: Any, connections: list[Any], start: int) -> None:
        self.last: Position = (start, -1)
        self._messages = _numbered(reader.messages(connections=connections, start=start))

    def find(self, position: Position) -> bytes | None:
        """The message at a position after the last one; None where there is none."""
        for last, raw in self._messages:
            self.last = last
            if last >= position:
                return raw if last == position else None
        return None


class _OpenBag:
    """An open bag, with a cursor for each topic that is read."""

    def __init__(self, path: Path, serialised: str) -> None:
        self._path, self._serialised = path, serialised
        self._readers: dict[str, Any] = {}
        self._cursors: dict[str, _Cursor] = {}

    def find(self, topic: str, position: Position) -> bytes | None:
        """The bytes of a message; None where there is none at the position."""
        cursor = self._cursors.get(topic)
        if cursor is None or not cursor.last < position or position[0] - cursor.last[0] > NEAR:
            # A reader for each topic, as one reader has one position in the file.
            reader = self._readers.setdefault(topic, None) or _open_reader(self._path, self._serialised)
            self._readers[topic] = reader
            cursor = _Cursor(reader, [each for each in reader.connections if each.topic == topic], position[0])
            self._cursors[topic] = cursor
        return cursor.find(position)

    def close(self) -> None:
        """Close the files."""
        self._cursors.clear()
        for reader in self._readers.values():
            with suppress(Exception):
                reader.close()
        self._readers.clear()


class RosbagFile(RecordedFile[_OpenBag]):
    """A bag: a file of ROS 1, or a folder or file of ROS 2. See `Recording`."""

    def __init__(self, path: Path, name: str, *, serialised: str) -> None:
        super().__init__(path, name)
        self.serialised = serialised

    def topics(self) -> list[Topic]:
        """All topics of the bag."""
        reader = _open_reader(self.path, self.serialised)
        try:
            return [_topic(name, info) for name, info in reader.topics.items()]
        finally:
            reader.close()

    def entries(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        """The messages of some topics; ends where the bag is damaged."""
        self.damage = ""
        reader = _open_reader(self.path, self.serialised)
        last: dict[str, Position] = {}
        try:
            connections = [each for each in reader.connections if each.topic in topics]
            for connection, logged, raw in reader.messages(connections=connections) if connections else ():
                topic = connection.topic
                before = last.get(topic, (logged, -1))
                last[topic] = position = (logged, before[1] + 1 if before[0] == logged else 0)
                yield RecordedMessage(topic, logged, position, self.decode(raw, topic, connection.msgtype))
        except _errors() as error:
            self.damage = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        finally:
            with suppress(Exception):
                reader.close()

    def message(self, topic: str, position: Any) -> Message:
        """The message of a topic at a position."""
        try:
            with self.opened() as bag:
                raw = bag.find(topic, position)
        except _errors() as error:
            raise DataError(f"{self.path}: {topic} cannot be read: {error}") from None
        if raw is None:
            raise DataError(f"{self.path}: a message of {topic} is no longer there; was the bag changed?")
        return self.decode(raw, topic, self._types()[topic])

    def open_handle(self) -> _OpenBag:
        """Open the bag."""
        return _OpenBag(self.path, self.serialised)

    def close_handle(self, handle: _OpenBag) -> None:
        """Close the bag."""
        handle.close()

    def _types(self) -> dict[str, str]:
        if not hasattr(self, "_msgtypes"):
            self._msgtypes = {topic.name: topic.type for topic in self.topics()}
        return self._msgtypes

    def decode(self, raw: bytes, topic: str, msgtype: str) -> Message:
        """The bytes of a message -> the message."""
        kind = ros_messages.kind_of(msgtype)
        return ros_messages.decode(raw, kind, serialised=self.serialised, where=f"{self.path}: {topic}")


def scan_bag(path: Path, topic: str, *, serialised: str) -> bytes:
    """The bytes of the first message of a topic; none where there is none."""
    reader = _open_reader(path, serialised)
    try:
        connections = [each for each in reader.connections if each.topic == topic]
        return bytes(next((raw for _, _, raw in reader.messages(connections=connections)), b""))
    except _errors() as error:
        raise DataError(f"{path}: {topic} cannot be read: {error}") from None
    finally:
        reader.close()


def _topic(name: str, info: Any) -> Topic:
    msgtype = info.msgtype or ""
    return Topic(name, ros_messages.kind_of(msgtype), msgtype, int(info.msgcount))


def _numbered(messages: Iterator[tuple[Any, int, bytes]]) -> Iterator[tuple[Position, bytes]]:
    """The messages of a topic, those of one time counted."""
    for logged, same in groupby(messages, key=lambda message: message[1]):
        for number, (_, _, raw) in enumerate(same):
            yield (logged, number), raw


def _open_reader(path: Path, serialised: str) -> Any:
    name = "rosbags.rosbag1" if serialised == ros_messages.ROS1 else "rosbags.rosbag2"
    library = import_library(name, what="a bag")
    try:
        reader = library.Reader(path)
        reader.open()
    except _errors() as error:
        raise DataError(f"{path}: not a bag that can be read: {error}; {REMEDY[serialised]}") from None
    return reader


@lru_cache
def _errors() -> tuple[type[Exception], ...]:
    """What rosbags raises for bags that are damaged: its own errors, and those of what it reads them with."""
    apsw = import_library("apsw", what="a bag")
    own = [import_library(f"rosbags.{name}", what="a bag").ReaderError for name in ("rosbag1", "rosbag2")]
    return (*own, apsw.Error, struct.error, AssertionError, RuntimeError, EOFError, OSError, ValueError, KeyError)
