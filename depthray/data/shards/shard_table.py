"""All that is known of a set of shards without reading them, as columns: where each frame is, and its facts.

Made of the indexes of the shards in memory, or mapped from the files that `index_files` writes. About 40 bytes a frame
of RGB and depth, instead of objects.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from depthray.data.columns.frame_columns import SPLITS, FrameColumns, Numbers, Texts
from depthray.data.columns.shard_numbers import ShardNumbers
from depthray.data.shards.format import Shard
from depthray.errors import DataError

MOST_SPLITS = 127  # different words: one byte a frame
NO_CAMERA = -1
OFFSET = "offset_"  # begins the columns with the positions of frames in their shards
ID_BYTES = 8 * 2**20  # digests kept in memory while a set is read


class ShardKind(NamedTuple):
    """What shards have in common."""

    size: tuple[int, int]  # height, width
    encoding: str  # of depth and sparse depth
    keys: tuple[str, ...]  # of the samples, in the order in which they are read


class SetFacts(NamedTuple):
    """What is known of a set as a whole."""

    fingerprint: str
    splits: list[str]
    sources: list[str]
    kinds: list[ShardKind]
    ids_differ: bool


class ShardTable:
    """The columns of a set of shards."""

    def __init__(self, arrays: dict[str, NDArray[Any]], facts: SetFacts) -> None:
        self.arrays, self.facts = arrays, facts
        self.names = Texts(arrays["shard_text"], arrays["shard_text_end"])
        self.sizes = arrays["shard_bytes"]  # (S,) bytes of the files
        self.checks = arrays["shard_check"]  # (S,32) SHA-256 of the index in each
        self.times = arrays["shard_time"]  # (S,) time of change in ns; -1 where it is not known
        self.numbers = ShardNumbers(arrays["shard_end"])
        self.offsets = {key.removeprefix(OFFSET): each for key, each in arrays.items() if key.startswith(OFFSET)}
        self.frames = FrameColumns(
            Texts(arrays["id_text"], arrays["id_text_end"]),
            scene=arrays["scene"],
            split=arrays["split"],
            source=arrays["source"],
            scenes=Texts(arrays["scene_text"], arrays["scene_text_end"]),
            splits=facts.splits,
            sources=facts.sources,
            ids_differ=facts.ids_differ,
        )

    def kind(self, number: int) -> ShardKind:
        """The kind of a shard."""
        return self.facts.kinds[int(self.arrays["shard_kind"][number])]

    def locate(self, index: int) -> tuple[int, int]:
        """Index of a frame -> number of its shard, and its row in that shard."""
        if not 0 <= index < len(self.frames):
            raise IndexError(f"frame {index} of {len(self.frames)}")
        number = int(self.numbers[index])
        return number, index - (int(self.numbers.ends[number - 1]) if number else 0)

    def intrinsics(self, index: int) -> NDArray[np.float32] | None:
        """(3,3) of a frame, a copy; None where it has none."""
        camera = int(self.arrays["camera"][index]) if "camera" in self.arrays else NO_CAMERA
        return None if camera == NO_CAMERA else np.array(self.arrays["camera_table"][camera], np.float32)

    def distortion(self, index: int) -> NDArray[np.float64] | None:
        """(9) the lens of a frame, a copy; None where it is not known."""
        lens = int(self.arrays["lens"][index]) if "lens" in self.arrays else NO_CAMERA
        return None if lens == NO_CAMERA else np.array(self.arrays["lens_table"][lens], np.float64)


class AppendedColumn(Protocol):
    """Values that are appended, in memory or in a file."""

    def append(self, values: ArrayLike) -> None:
        """Append values (N,...)."""


class MemoryColumn:
    """A column in memory."""

    def __init__(self, name: str, dtype: DTypeLike, tail: tuple[int, ...] = ()) -> None:
        self._parts = [np.empty((0, *tail), dtype)]

    def append(self, values: ArrayLike) -> None:
        """Append values (N,...)."""
        self._parts.append(np.asarray(values, self._parts[0].dtype))

    def joined(self) -> NDArray[Any]:
        """All values."""
        return np.concatenate(self._parts)


class TableBuilder:
    """Puts the indexes of shards into columns, one shard after the other, in the order of their names.

    `make_column(name, dtype, tail)` makes a column of values of shape `tail`; `largest` is the largest shard in bytes.
    """

    def __init__(
        self, make_column: Callable[[str, DTypeLike, tuple[int, ...]], AppendedColumn], *, largest: int
    ) -> None:
        self._make, self._columns = make_column, dict[str, AppendedColumn]()
        self._offset_dtype = "<u4" if largest < 2**32 else "<u8"
        self._ends: dict[str, int] = {}
        self._frames = 0
        self._scenes, self._splits, self._sources = Numbers(), Numbers(SPLITS), Numbers()
        self._kinds: dict[ShardKind, int] = {}
        self._tables: dict[str, dict[bytes, int]] = {"camera_table": {}, "lens_table": {}}
        self._hashes: list[NDArray[np.int64]] = []  # of ids
        self._total = sha256(b"[[")
        self._digests: IO[bytes] = tempfile.SpooledTemporaryFile(ID_BYTES)  # noqa: SIM115 - until `__exit__`

    def __enter__(self) -> TableBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self._digests.close()

    def add(self, name: str, shard: Shard) -> None:
        """Append a shard and its frames."""
        count, before = len(shard.frames), self._frames
        self._frames += count
        self._hash(shard, first=not before)
        self._text("shard_text", [name])
        self._values("shard_end", [self._frames], "<i8")
        self._values("shard_bytes", [shard.stamp[0]], "<i8")
        self._values("shard_time", [-1 if shard.stamp[1] is None else shard.stamp[1]], "<i8")
        self._values("shard_check", np.frombuffer(shard.checksum, np.uint8)[None], "u1", (32,))
        vectors = {"intrinsics": shard.intrinsics, "distortion": shard.distortion}
        keys = (*shard.offsets, *(key for key, values in vectors.items() if values is not None))
        kind = self._kinds.setdefault(ShardKind(shard.size, shard.encoding, keys), len(self._kinds))
        self._values("shard_kind", [kind], "<i4")
        self._text("id_text", [frame.id for frame in shard.frames])
        self._values("scene", [self._number_of_scene(frame.scene) for frame in shard.frames], "<i4")
        self._values("split", [self._number_of_split(frame.split, name) for frame in shard.frames], "i1")
        self._values("source", [self._sources.number(frame.source) for frame in shard.frames], "<i4")
        before_keys = (each.removeprefix(OFFSET) for each in self._columns if each.startswith(OFFSET))
        for key in dict.fromkeys([*before_keys, *shard.offsets]):
            values = shard.offsets.get(key, np.zeros(count, np.int64))  # 0 where a shard has no such map
            self._values(OFFSET + key, values, self._offset_dtype, filled=(before, 0))
        if shard.intrinsics is not None or "camera" in self._columns:
            numbers = self._numbered(shard.intrinsics, count, "camera_table", "<f4", (3, 3))
            self._values("camera", numbers, "<i4", filled=(before, NO_CAMERA))
        if shard.distortion is not None or "lens" in self._columns:
            numbers = self._numbered(shard.distortion, count, "lens_table", "<f8", (9,))
            self._values("lens", numbers, "<i4", filled=(before, NO_CAMERA))

    def finish(self) -> SetFacts:
        """Complete the fingerprint; the columns then hold everything."""
        self._text("scene_text", [])  # there also where no frame is
        for name, dtype, tail in (("scene", "<i4", ()), ("split", "i1", ()), ("source", "<i4", ())):
            self._values(name, np.empty(0, dtype), dtype, tail)
        self._total.update(b"], [")
        self._digests.seek(0)
        while chunk := self._digests.read(ID_BYTES):
            self._total.update(chunk)
        self._total.update(b"]]")
        hashes = np.sort(np.concatenate([np.empty(0, np.int64), *self._hashes]))
        return SetFacts(
            fingerprint=self._total.hexdigest(),
            splits=self._splits.names,
            sources=self._sources.names,
            kinds=list(self._kinds),
            # Equal hashes of different ids are so rare that whoever needs to know may count the ids themselves.
            ids_differ=bool((np.diff(hashes) > 0).all()),
        )

    def _hash(self, shard: Shard, *, first: bool) -> None:
        """Add frames to the fingerprint, which is that of `format.content_digest`, and their ids to the hashes."""
        separator = b"" if first else b", "
        self._total.update(separator + json.dumps(shard.frames)[1:-1].encode())
        self._digests.write(separator + json.dumps(shard.digests)[1:-1].encode())
        self._hashes.append(np.fromiter((hash(frame.id) for frame in shard.frames), np.int64, len(shard.frames)))

    def _number_of_scene(self, scene: str) -> int:
        known = len(self._scenes)
        number = self._scenes.number(scene)
        if number == known:
            self._text("scene_text", [scene])
        return number

    def _number_of_split(self, split: str, name: str) -> int:
        number = self._splits.number(split)
        if number >= MOST_SPLITS:
            raise DataError(f"{name}: frames have {number} different splits; declare train, val, test or none")
        return number

    def _numbered(
        self, values: NDArray[Any] | None, count: int, name: str, dtype: DTypeLike, tail: tuple[int, ...]
    ) -> list[int]:
        """The number of each frame's value in a table of different ones, to which new ones are appended."""
        if values is None:
            return [NO_CAMERA] * count
        numbers, table = [], self._tables[name]
        for value in values:
            known = len(table)
            numbers.append(table.setdefault(value.tobytes(), known))
            if numbers[-1] == known:
                self._values(name, value[None], dtype, tail)
        return numbers

    def _text(self, name: str, texts: list[str]) -> None:
        parts = [text.encode() for text in texts]
        ends = self._ends.get(name, 0) + np.cumsum([len(part) for part in parts], dtype=np.int64)
        self._values(name, np.frombuffer(b"".join(parts), np.uint8), "u1")
        self._values(f"{name}_end", ends, "<i8")
        self._ends[name] = int(ends[-1]) if len(ends) else self._ends.get(name, 0)

    def _values(
        self,
        name: str,
        values: ArrayLike,
        dtype: DTypeLike,
        tail: tuple[int, ...] = (),
        *,
        filled: tuple[int, int] = (0, 0),
    ) -> None:
        """Append values to a column; a new one begins with so many of a value, for the frames before it."""
        if name not in self._columns:
            self._columns[name] = self._make(name, dtype, tail)
            count, value = filled
            self._columns[name].append(np.full((count, *tail), value, dtype))
        self._columns[name].append(values)


def build_table(shards: Iterable[tuple[str, Shard]], *, largest: int) -> ShardTable:
    """The table of shards by name, in memory."""
    columns: dict[str, MemoryColumn] = {}

    def make(name: str, dtype: DTypeLike, tail: tuple[int, ...]) -> MemoryColumn:
        return columns.setdefault(name, MemoryColumn(name, dtype, tail))

    with TableBuilder(make, largest=largest) as builder:
        for name, shard in shards:
            builder.add(name, shard)
        facts = builder.finish()
    return ShardTable({name: column.joined() for name, column in columns.items()}, facts)
