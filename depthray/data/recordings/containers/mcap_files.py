"""MCAP files with messages of ROS, read by the library mcap from the beginning, so that what is cut off can be read."""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from depthray.data.recordings import ros_messages
from depthray.data.recordings.messages import Message, RecordedMessage, Topic
from depthray.data.recordings.recording import RecordedFile, import_library
from depthray.errors import DataError

WHAT = "an MCAP file"
MAGIC_BYTES = 8
RECORD = struct.Struct("<BQ")  # what a record begins with: its kind, and its length
MOST_CHUNKS = 2  # decompressed chunks that are kept: colour and depth of a frame may be in two
SERIALISED = {"cdr": ros_messages.ROS2, "ros1": ros_messages.ROS1}

Position = tuple[int, int]  # byte of a record in the file, and which of the messages in it


class _OpenMcap:
    """An open file, and the chunks of it that were read last."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self._chunks: OrderedDict[int, list[Any]] = OrderedDict()

    def find(self, position: Position) -> bytes:
        """The bytes of the message at a position."""
        at, number = position
        if at not in self._chunks:
            self.file.seek(at)
            self._chunks[at] = _messages_of(next(_records(self.file)))
        self._chunks.move_to_end(at)
        while len(self._chunks) > MOST_CHUNKS:
            self._chunks.popitem(last=False)
        return bytes(self._chunks[at][number].data)


class McapFile(RecordedFile[_OpenMcap]):
    """An MCAP file. See `Recording`."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self._topics: list[Topic] = []
        self._serialised: dict[str, str] = {}  # by topic

    def topics(self) -> list[Topic]:
        """All topics of the file: by its summary, or where there is none by all of its records."""
        if not self._topics:
            schemas, channels, counts = _summary(self.path) or self._read_through()
            for number, channel in channels.items():
                schema = schemas.get(channel.schema_id)
                self._serialised[channel.topic] = SERIALISED.get(channel.message_encoding, "")
                self._topics.append(_topic(channel, schema.name if schema else "", counts.get(number, 0)))
        return self._topics

    def entries(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        """The messages of some topics, in the order of the file; ends where it is damaged."""
        kinds = {topic.name: topic.kind for topic in self.topics()}
        self.damage = ""
        names: dict[int, str] = {}
        library = _records_library()
        for at, number, record in self._walk():
            if isinstance(record, library.Channel):
                names[record.id] = record.topic
            elif isinstance(record, library.Message) and (name := names.get(record.channel_id)) in topics:
                assert name is not None
                yield RecordedMessage(name, record.log_time, (at, number), self._decode(record.data, name, kinds[name]))

    def message(self, topic: str, position: Any) -> Message:
        """The message of a topic at a position."""
        kinds = {each.name: each.kind for each in self.topics()}
        try:
            with self.opened() as handle:
                raw = handle.find(position)
        except _errors() as error:
            raise DataError(f"{self.path}: {topic} cannot be read: {error}; was the file changed?") from None
        except (StopIteration, IndexError, AttributeError):  # no record there, or another one
            raise DataError(f"{self.path}: a message of {topic} is no longer there; was the file changed?") from None
        return self._decode(raw, topic, kinds[topic])

    def open_handle(self) -> _OpenMcap:
        """Open the file."""
        try:
            return _OpenMcap(self.path)
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror}") from None

    def close_handle(self, handle: _OpenMcap) -> None:
        """Close the file."""
        handle.file.close()

    def _walk(self) -> Iterator[tuple[int, int, Any]]:
        """All records from the beginning, with the byte of each and the number of messages before it in its chunk."""
        try:
            with self.path.open("rb") as file:
                if file.read(MAGIC_BYTES)[1:5] != b"MCAP":
                    raise DataError(f"{self.path}: not an MCAP file")
                at, size, records = file.tell(), os.fstat(file.fileno()).st_size, _records(file)
                while True:
                    _refuse_cut(file, at, size)
                    record = next(records, None)
                    if record is None:
                        return
                    for number, each in _counted(_contents(record)):
                        yield at, number, each
                    if isinstance(record, _records_library().Footer):
                        return
                    at = file.tell()
        except _errors() as error:
            self.damage = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

    def _read_through(self) -> tuple[dict[int, Any], dict[int, Any], dict[int, int]]:
        """Schemas, channels, and the number of messages of each channel."""
        schemas: dict[int, Any] = {}
        channels: dict[int, Any] = {}
        counts: dict[int, int] = {}
        library = _records_library()
        for _, _, record in self._walk():
            if isinstance(record, library.Schema):
                schemas[record.id] = record
            elif isinstance(record, library.Channel):
                channels[record.id] = record
            elif isinstance(record, library.Message):
                counts[record.channel_id] = counts.get(record.channel_id, 0) + 1
        if not channels:
            raise DataError(f"{self.path}: no messages can be read{self.damage and f' ({self.damage})'}; remove it")
        return schemas, channels, counts

    def _decode(self, raw: bytes, topic: str, kind: str) -> Message:
        return ros_messages.decode(raw, kind, serialised=self._serialised[topic], where=f"{self.path}: {topic}")


def _topic(channel: Any, schema: str, count: int) -> Topic:
    # Messages of other tools (JSON, Protobuf) have other fields.
    known = channel.message_encoding in SERIALISED
    kind = ros_messages.kind_of(schema) if known else ""
    return Topic(channel.topic, kind, schema if known else f"{schema} as {channel.message_encoding}", count)


def _summary(path: Path) -> tuple[dict[int, Any], dict[int, Any], dict[int, int]] | None:
    """Schemas, channels and counts by the end of the file; None where it has none."""
    library = import_library("mcap.reader", what=WHAT)
    try:
        with path.open("rb") as file:
            summary = library.SeekingReader(file).get_summary()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except _errors():
        return None
    if summary is None or not summary.channels:
        return None
    counts = summary.statistics.channel_message_counts if summary.statistics else {}
    return summary.schemas, summary.channels, counts


def _refuse_cut(file: IO[bytes], at: int, size: int) -> None:
    """Raise EOFError where the next record does not end before the file does: the library reads a part of it."""
    head = os.pread(file.fileno(), RECORD.size, at)
    if head and (len(head) < RECORD.size or at + RECORD.size + RECORD.unpack(head)[1] > size):
        raise EOFError(f"cut off within the record at byte {at} of {size}")


def _records(file: IO[bytes]) -> Iterator[Any]:
    library = import_library("mcap.stream_reader", what=WHAT)
    records: Iterator[Any] = library.StreamReader(file, skip_magic=True, emit_chunks=True).records
    return records


def _contents(record: Any) -> list[Any]:
    """The records in a chunk; of another record it alone."""
    if not isinstance(record, _records_library().Chunk):
        return [record]
    contents: list[Any] = import_library("mcap.stream_reader", what=WHAT).breakup_chunk(record, validate_crc=True)
    return contents


def _messages_of(record: Any) -> list[Any]:
    message = _records_library().Message
    return [each for each in _contents(record) if isinstance(each, message)]


def _counted(records: list[Any]) -> Iterator[tuple[int, Any]]:
    message, count = _records_library().Message, 0
    for record in records:
        yield count, record
        count += isinstance(record, message)


def _records_library() -> Any:
    return import_library("mcap.records", what=WHAT)


@lru_cache
def _errors() -> tuple[type[Exception], ...]:
    """What mcap raises for files that are damaged: its own errors, and those of what it decompresses with."""
    zstandard = import_library("zstandard", what=WHAT)
    own = import_library("mcap.exceptions", what=WHAT).McapError
    return (own, zstandard.ZstdError, struct.error, RuntimeError, EOFError, OSError, ValueError, MemoryError)
