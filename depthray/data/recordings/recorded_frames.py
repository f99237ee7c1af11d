"""A data set of recordings: every kind of them has these frames, from messages that its own reader gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.readers.files import data_root
from depthray.data.recordings import pixels, rig
from depthray.data.recordings.clocks import SECOND
from depthray.data.recordings.messages import Pictures
from depthray.data.recordings.recorded_index import RecordedIndex, RecordedPair, index_recording, read_pictures
from depthray.data.recordings.recording import Recording, find_files, name_in
from depthray.data.source import Frame, frame_text, keys_to_read
from depthray.errors import DataError, count_of

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data

MOST_OPEN = 8  # recordings that a process keeps open
NAMED = 3  # recordings that a note names
KEYS = frozenset({"image", "depth", "intrinsics"})


class _Row(NamedTuple):
    """A frame of a recording."""

    recording: int
    pair: RecordedPair


class RecordedFrames:
    """The frames of some recordings. See `depthray.data.source.Source`."""

    def __init__(self, root: Path, recordings: Sequence[Recording], section: Data) -> None:
        if not recordings:
            raise DataError(f"{root}: no recordings there")
        self._recordings, self._options = recordings, section.recording
        self._indexes = [index_recording(recording, section.recording) for recording in recordings]
        default = type(section).model_fields["encoding"].default
        # The default is as good as none: what images state is then their unit.
        declared = "" if section.encoding == default else section.encoding
        self._units = [_unit(*each, declared) for each in zip(recordings, self._indexes, strict=True)]
        at, gap = root.resolve(), round(section.recording.gap * SECOND)
        source = at.stem if at.is_file() else at.name
        self._rows: list[_Row] = []
        self.frames: list[Frame] = []
        for number, (recording, index) in enumerate(zip(recordings, self._indexes, strict=True)):
            self._rows += [_Row(number, pair) for pair in index.pairs]
            self.frames += _frames(recording, index.pairs, source=source, gap=gap)
        cameras = all(each.colour is not None for index in self._indexes for each in index.rigs)
        self.keys = (KEYS if cameras else KEYS - {"intrinsics"}) & keys_to_read(section)
        lenses = [each.colour for index in self._indexes for each in index.rigs if each.colour is not None]
        keeps = cameras and not self._options.undistort and any(each.distortion for each in lenses)
        if keeps and all(rig.kept_lens(each) is not None for each in lenses):
            self.keys |= {"distortion"}
        self.notes = [*_notes(recordings, self._indexes), *_camera_notes(recordings, self._indexes)]
        if keeps:
            kept = "is kept with the frames" if "distortion" in self.keys else "is left, and not known to the frames"
            self.notes = [note.replace("lens distortion is removed", f"lens distortion {kept}") for note in self.notes]
        self._open: list[int] = []  # in the order of their last use

    @staticmethod
    def of_files(section: Data, suffix: str, open_file: Callable[[Path, str], Recording]) -> RecordedFrames:
        """Those of the file, or of the files with a suffix in the folder, at `section.root`, each by its name there."""
        root = data_root(section)
        return RecordedFrames(
            root, [open_file(path, name_in(root, path)) for path in find_files(root, suffix)], section
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the frames, of how they are read, and of the names and sizes of the files."""
        options = self._options.model_dump_json()
        facts = (options, self._units, [each.rigs for each in self._indexes], [each.topics for each in self._indexes])
        digest = sha256(repr(facts).encode())
        for recording, index in zip(self._recordings, self._indexes, strict=True):
            digest.update(repr((recording.name, recording.sizes(index.topics.all))).encode())
        for row, frame in zip(self._rows, self.frames, strict=True):
            digest.update(f"({frame_text(frame)}, {row.pair!r})".encode())
        return digest.hexdigest()

    def read(self, index: int) -> Sample:
        """Read one frame: depth registered to colour, both without lens distortion."""
        row, frame = self._rows[index], self.frames[index]
        recording, indexed = self._recordings[row.recording], self._indexes[row.recording]
        where = f"{recording.path}: frame '{frame.id}'"
        message = self._message(row, indexed.topics.colour, row.pair.colour)
        image = pixels.read_colour(message, where=f"{where}: {indexed.topics.colour}")
        depth = encodings.decode(
            self.stored_depth(index), self.encoding(index), where=f"{where}: {indexed.topics.depth}"
        )
        arrays = rig.assemble(indexed.rigs[row.pair.rig], image, depth, undistort=self._options.undistort, where=where)
        kept = {key: array for key, array in arrays.items() if key in self.keys}
        return cast("Sample", {**kept, "id": frame.id, "scene": frame.scene, "source": frame.source})

    def faults(self, index: int) -> list[str]:
        """Depth that is read as unmeasured although it is not 0."""
        odd = encodings.describe_odd_values(self.stored_depth(index))
        return [f"{self.frames[index].id}: {odd} values, read as unmeasured"] if odd else []

    def encoding(self, index: int) -> str:
        """How the depth of a frame is stored: as its images state, or as was declared."""
        return self._units[self._rows[index].recording]

    def stored_depth(self, index: int) -> NDArray[Any]:
        """Frame -> (h,w) depth as recorded, not yet metres, of the depth camera's own pixels"""
        row = self._rows[index]
        topic = self._indexes[row.recording].topics.depth
        where = f"{self._recordings[row.recording].path}: frame '{self.frames[index].id}': {topic}"
        return pixels.read_depth(self._message(row, topic, row.pair.depth), where=where)

    def recorded_at(self, index: int) -> tuple[str, int]:
        """The name of the recording of a frame, and the time of its colour image in nanoseconds."""
        row = self._rows[index]
        return self._recordings[row.recording].name, row.pair.time

    def _message(self, row: _Row, topic: str, position: Any) -> Pictures:
        recent = [number for number in self._open if number != row.recording] + [row.recording]
        for number in recent[:-MOST_OPEN]:
            self._recordings[number].close()
        self._open = recent[-MOST_OPEN:]
        return read_pictures(self._recordings[row.recording], topic, position)


def _unit(recording: Recording, index: RecordedIndex, declared: str) -> str:
    """The encoding of a recording's depth: as declared, else as stated; a DataError where neither says."""
    unit = declared or recording.depth_encoding or index.unit
    if not unit:
        raise DataError(
            f"{recording.path}: {index.topics.depth} is {index.encoding}, which has no unit (16UC1 is millimetres, "
            "32FC1 metres): declare it with --encoding (data.encoding), such as uint16/1000 for millimetres"
        )
    return unit


def _frames(recording: Recording, pairs: Sequence[RecordedPair], *, source: str, gap: int) -> list[Frame]:
    """The frames of a recording: a scene, or one for each part that a gap separates."""
    part, parts, before = 0, [], pairs[0].time if pairs else 0
    for pair in pairs:
        # Where a room is known, all that was recorded there is one scene.
        part, before = part + (not recording.scene and pair.time - before > gap), pair.time
        parts.append(part)
    scene = recording.scene or recording.name
    scenes = [f"{scene}-{number:02d}" if part else scene for number in range(part + 1)]
    return [
        Frame(f"{recording.name}/{pair.time}", scenes[number], recording.split, source)
        for pair, number in zip(pairs, parts, strict=True)
    ]


def _notes(recordings: Sequence[Recording], indexes: Sequence[RecordedIndex]) -> list[str]:
    """What was left out, a line for each reason, and how the rest was made frames of."""
    notes = [
        f"{recording.path} is damaged: what was recorded after that is left out ({recording.damage})"
        for recording in recordings
        if recording.damage
    ]
    for reason in dict.fromkeys(reason for index in indexes for reason in index.left_out):
        counts = Counter({each.name: index.left_out[reason] for each, index in zip(recordings, indexes, strict=True)})
        if total := counts.total():
            most = ", ".join(f"{name} {count}" for name, count in counts.most_common(NAMED) if count)
            notes.append(
                f"{total} {reason} left out ({most}{', ...' if sum(map(bool, counts.values())) > NAMED else ''})"
            )
    apart = max(index.apart for index in indexes)
    return [*notes, f"colour and depth of a frame are at most {apart / 1e6:.3g} ms apart"]


def _camera_notes(recordings: Sequence[Recording], indexes: Sequence[RecordedIndex]) -> list[str]:
    """How depth came to the pixels of colour, and recordings without cameras."""
    rigs = [each for index in indexes for each in index.rigs]
    registered = sum(each.pose is not None for index in indexes for each in index.rigs[:1])
    notes = [f"depth is registered to colour in {count_of(registered, 'recording')}"] if registered else []
    if any(each.colour is not None and each.colour.distortion for each in rigs):
        notes.append("lens distortion is removed")
    unknown = [
        recording.name
        for recording, index in zip(recordings, indexes, strict=True)
        if any(each.colour is None for each in index.rigs)
    ]
    if unknown:
        notes.append(
            f"no camera of colour in {', '.join(unknown[:NAMED])}, so frames have no intrinsics: "
            "data.recording.intrinsics=fx,fy,cx,cy states them"
        )
    return notes
