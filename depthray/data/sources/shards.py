"""A folder of HDF5 shards, as `depthray data pack` writes them, on a disk or on an object store."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.columns.frame_columns import FrameColumns
from depthray.data.columns.shard_numbers import ShardNumbers
from depthray.data.readers.files import data_root
from depthray.data.shards import format, index_files
from depthray.data.shards.format import Shard
from depthray.data.shards.remote_shards import RemoteShards
from depthray.data.shards.shard_table import ShardTable, build_table
from depthray.data.source import LABELS, RESTART, Place, keys_to_read
from depthray.errors import DataError
from depthray.storage.remote import is_remote

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data

IDS = ("semantics", "instances")
CHANGED = (*IDS, *format.METRES, *LABELS)  # maps that samples do not have as they are stored
MOST_OPEN = 10  # files a process keeps open at a time: more than data.order=shards reads side by side


def open_source(section: Data) -> Shards:
    """The shards at `section.root`: a folder, one file, or the address of either."""
    if is_remote(section.root):
        return Shards(RemoteShards(section.root), keys_to_read(section), remote=True)
    return Shards(LocalShards(data_root(section)), keys_to_read(section))


def fits(root: Path) -> bool:
    """Whether there are shards, or the path is one."""
    return root.suffix == ".h5" or any(root.glob("*.h5"))


class Stored(NamedTuple):
    """How the frames of a shard are stored, and where."""

    encoding: str
    path: Path
    size: tuple[int, int]  # height, width
    maps: tuple[tuple[str, NDArray[Any]], ...]  # those that samples have, and where each frame's is
    steps: NDArray[np.float32] | None  # (3) `depth_scale` of depth as stored, None where samples cannot have that


class ShardStore(Protocol):
    """Where shards are stored: a local folder or an object store."""

    table: ShardTable

    def path(self, number: int) -> Path:
        """The path of a shard on this machine, where it is once it is open."""

    def open(self, number: int) -> int:
        """A file descriptor of a shard, open for reading; a DataError where it is gone."""

    def refuse_misfit(self, numbers: Iterable[int]) -> None:
        """Raise ResourceError where there is no space for these shards at once."""


class LocalShards:
    """The shards in a folder, or the one file that it is."""

    def __init__(self, root: Path) -> None:
        self._folder = root.parent if root.is_file() else root
        self.table: ShardTable = (None if root.is_file() else index_files.find(root)) or self._read_all(root)

    @staticmethod
    def _read_all(root: Path) -> ShardTable:
        paths = [root] if root.is_file() else sorted(root.glob("*.h5"))
        if not paths:
            raise DataError(f"{root}: no *.h5 shards there; make them with `depthray data pack`")
        shards = ((path.name, format.open_shard(path)) for path in paths)
        return build_table(shards, largest=max(map(_bytes, paths)))

    def path(self, number: int) -> Path:
        """The path of a shard."""
        return self._folder / self.table.names[number]

    def open(self, number: int) -> int:
        """A file descriptor of a shard, open for reading."""
        path = self.path(number)
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; it was there when the data set was opened") from None

    def refuse_misfit(self, numbers: Iterable[int]) -> None:
        """Do nothing: local shards need no further space."""


def _bytes(path: Path) -> int:
    """The size of a file; 0 where there is none, which whoever opens it says."""
    return path.stat().st_size if path.exists() else 0


class _Handle:
    """An open file that is closed with its last reference: a read may be using one that has left the list."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Shards:
    """A data set of shards. See `depthray.data.source.Source` and `Sharded`."""

    def __init__(self, store: ShardStore, keys: frozenset[str], *, remote: bool = False) -> None:
        self.remote = remote
        self._store, self._table = store, store.table
        self._handles: dict[int, _Handle] = {}  # in the order of their last use
        self._checked: set[int] = set()  # shards that are those of the table
        self._stored: dict[int, Stored] = {}  # of shards that were read
        self._last: tuple[int, Shard] | None = None  # the shard whose own index was read last
        # What every shard has: the samples of a batch must have equal keys.
        self.keys = (keys | {"distortion"}).intersection(*(kind.keys for kind in self._table.facts.kinds))

    def __getstate__(self) -> dict[str, Any]:
        # A process that gets a copy opens the files itself.
        return {**self.__dict__, "_handles": {}, "_checked": set(), "_last": None}

    @property
    def frames(self) -> FrameColumns:
        """The frames in the order of the shards, made when they are asked for."""
        return self._table.frames

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the frames and their order, independent of how they are cut into shards."""
        return self._table.facts.fingerprint

    @property
    def shard_numbers(self) -> ShardNumbers:
        """The number of the shard of each frame."""
        return self._table.numbers

    @property
    def notes(self) -> tuple[str, ...]:
        """What only some of the shards hold, so that no sample has it."""
        kinds = self._table.facts.kinds
        found = dict.fromkeys(key for kind in kinds for key in kind.keys)
        return tuple(
            f"{key}: only some of the shards have it, so that it is left out; keep those in a folder of their own"
            for key in found
            if any(key not in kind.keys for kind in kinds)
        )

    def provenance(self) -> dict[str, Any]:
        """What the first shard says of where its frames came from; a remote one is downloaded."""
        self._open(0)
        return self._own_index(0, self._store.path(0)).provenance

    def download(self, number: int) -> None:
        """Download a shard to this node where it is remote, for reading it soon."""
        os.close(self._store.open(number))  # opening it downloads it

    def hold(self, numbers: Iterable[int]) -> None:
        """Open shards in this process, so that processes forked from it can read them as well."""
        for number in numbers:
            self._open(number)

    def refuse_misfit(self, numbers: Iterable[int]) -> None:
        """Raise ResourceError where this node has no space for these shards at once."""
        self._store.refuse_misfit(numbers)

    def read(self, index: int) -> Sample:
        """Read one frame."""
        return self._read(index)

    def read_stored(self, index: int, place: Place | None = None) -> Sample:
        """Read one frame, its depth in stored steps, with `depth_scale`, what needs no change into `place`."""
        return self._read(index, keep_depth=True, place=place)

    def _read(self, index: int, *, keep_depth: bool = False, place: Place | None = None) -> Sample:
        number, _ = self._table.locate(index)
        frame, handle = self.frames[index], self._open(number)
        stored = self._describe(number)
        keep_depth = keep_depth and stored.steps is not None
        sample: Sample = {"id": frame.id, "scene": frame.scene, "source": frame.source}
        for key, offsets in stored.maps:
            kept = key not in CHANGED or (keep_depth and key == "depth")
            there = place if kept else None
            array = self._read_map(index, key, int(offsets[index]), handle=handle, stored=stored, place=there)
            sample[key] = array if kept else _from_stored(key, array, stored)  # type: ignore[literal-required]
        if keep_depth and stored.steps is not None:
            sample["depth_scale"] = stored.steps.copy()
        camera = self._table.intrinsics(index) if "intrinsics" in self.keys else None
        if camera is not None:
            sample["intrinsics"] = camera
        if "distortion" in self.keys and (lens := self._table.distortion(index)) is not None:
            sample["distortion"] = lens
        return sample

    def _describe(self, number: int) -> Stored:
        """How a shard's frames are stored: looked up once, not with each of them."""
        if stored := self._stored.get(number):
            return stored
        kind, offsets = self._table.kind(number), self._table.offsets
        keys = [key for key in kind.keys if key in self.keys and key in offsets]
        steps = format.STEPS_PER_METRE.get(kind.encoding) if "depth" in keys else None
        self._stored[number] = Stored(
            kind.encoding,
            self._store.path(number),
            kind.size,
            tuple((key, offsets[key]) for key in keys),
            None if steps is None else np.array([steps, 1, 0], np.float32),
        )
        return self._stored[number]

    def _read_map(
        self, index: int, key: str, offset: int, *, handle: _Handle, stored: Stored, place: Place | None = None
    ) -> NDArray[Any]:
        array = format.read_at(handle.number, offset, key=key, size=stored.size, place=place)
        if array is None:
            raise DataError(f"{stored.path}: ends in the middle of frame '{self.frames[index].id}'; {format.REPACK}")
        return array

    def encoding(self, index: int) -> str:
        """How the depth of a frame is stored."""
        return self._table.kind(self._table.locate(index)[0]).encoding

    def stored_depth(self, index: int) -> NDArray[Any]:
        """Frame -> (H,W) depth as stored in its shard, not yet metres"""
        number, _ = self._table.locate(index)
        handle, offset = self._open(number), int(self._table.offsets["depth"][index])
        return self._read_map(index, "depth", offset, handle=handle, stored=self._describe(number))

    def faults(self, index: int) -> list[str]:
        """The faults of a frame whose bytes are no longer those that were packed, or not as the index has them."""
        number, row = self._table.locate(index)
        handle, path = self._open(number), self._store.path(number)
        shard = self._own_index(number, path)
        found = []
        if not format.is_unaltered(shard, handle.number, row):
            found = [f"{path}: altered after it was written (sha256 of the frame does not match); {format.REPACK}"]
        offsets = {key: int(each[index]) for key, each in self._table.offsets.items() if key in shard.offsets}
        if self.frames[index] != shard.frames[row] or any(shard.offsets[key][row] != offsets[key] for key in offsets):
            found.append(f"{path}: not as the index of the set has it; write that anew: {index_files.COMMAND} ROOT")
        return found

    def _own_index(self, number: int, path: Path) -> Shard:
        """The index in a shard, which has the checksums of its frames."""
        if self._last is None or self._last[0] != number:
            self._last = (number, format.open_shard(path))
        return self._last[1]

    def _open(self, number: int) -> _Handle:
        # Popped and put back, which moves it to the end of the order of use.
        handle = self._handles.pop(number, None) or _Handle(self._store.open(number))
        self._handles[number] = handle
        if len(self._handles) > MOST_OPEN:
            for least_recent in list(self._handles)[:-MOST_OPEN]:
                self._handles.pop(least_recent, None)
        # On the open file, so that one that was replaced since is noticed before its bytes are read.
        size, changed = int(self._table.sizes[number]), int(self._table.times[number])
        status = os.fstat(handle.number)
        if status.st_size != size or changed not in (-1, status.st_mtime_ns):
            raise DataError(f"{self._store.path(number)}: changed since the data set was opened; {RESTART}")
        if number not in self._checked:
            self._check(number, handle, size)
        return handle

    def _check(self, number: int, handle: _Handle, size: int) -> None:
        """Refuse a shard that is not the one whose index the table has, which has the same size by chance."""
        tail = os.pread(handle.number, format.TAIL.size, size - format.TAIL.size)
        with format.translate_index_errors(self._store.path(number)):
            checksum = format.read_tail(tail)[1]
        if checksum != self._table.checks[number].tobytes():
            raise DataError(
                f"{self._store.path(number)}: not the shard of which the index of the set was made; write that anew: "
                f"{index_files.COMMAND} ROOT"
            )
        self._checked.add(number)


def _from_stored(key: str, stored: Any, of: Stored) -> Any:
    """(H,W) of a key of `CHANGED` as stored -> as in a sample: float32 metres, int32 ids."""
    if key in format.METRES:
        return encodings.decode(stored, of.encoding, where=str(of.path))
    if key in LABELS:
        return stored.astype(np.float32)
    return stored.astype(np.int32)
