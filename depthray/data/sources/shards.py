"""A folder of HDF5 shards, as `depthray data pack` writes them, on a disk or on an object store."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.readers.files import data_root
from depthray.data.shards import format
from depthray.data.shards.format import Shard
from depthray.data.shards.remote_shards import RemoteShards
from depthray.data.source import RESTART, keys_to_read
from depthray.errors import DataError
from depthray.storage.remote import is_remote

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data

IDS = ("semantics", "instances")
MOST_OPEN = 10  # files a process keeps open at a time: more than data.order=shards reads side by side


def open_source(section: Data) -> Shards:
    """The shards at `section.root`: a folder, one file, or the address of either."""
    if is_remote(section.root):
        return Shards(RemoteShards(section.root), keys_to_read(section), remote=True)
    return Shards(LocalShards(data_root(section)), keys_to_read(section))


def fits(root: Path) -> bool:
    """Whether there are shards, or the path is one."""
    return root.suffix == ".h5" or any(root.glob("*.h5"))


class ShardStore(Protocol):
    """Where shards are stored: a local folder or an object store."""

    shards: list[Shard]

    def open(self, shard: Shard) -> int:
        """A file descriptor of a shard, open for reading; a DataError where it is gone."""

    def refuse_misfit(self, shards: Iterable[Shard]) -> None:
        """Raise ResourceError where there is no space for these shards at once."""


class LocalShards:
    """The shards in a folder, or the one file that it is."""

    def __init__(self, root: Path) -> None:
        paths = [root] if root.is_file() else sorted(root.glob("*.h5"))
        if not paths:
            raise DataError(f"{root}: no *.h5 shards there; make them with `depthray data pack`")
        self.shards = [format.open_shard(path) for path in paths]

    def open(self, shard: Shard) -> int:
        """A file descriptor of a shard, open for reading."""
        try:
            return os.open(shard.path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{shard.path}: {error.strerror}; it was there when the data set was opened") from None

    def refuse_misfit(self, shards: Iterable[Shard]) -> None:
        """Do nothing: local shards need no further space."""


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
        self._store, self._shards = store, store.shards
        # For each shard the index of the first frame after it.
        self._ends = list(accumulate(len(shard.frames) for shard in self._shards))
        self._handles: dict[int, _Handle] = {}  # in the order of their last use
        self.frames = [frame for shard in self._shards for frame in shard.frames]
        # What every shard has: the samples of a batch must have equal keys.
        self.keys = keys.intersection(*(_keys(shard) for shard in self._shards))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}  # a process that gets a copy opens the files itself

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the frames and their order, independent of how they are cut into shards."""
        return format.content_digest(self.frames, [digest for shard in self._shards for digest in shard.digests])

    @property
    def shard_numbers(self) -> NDArray[np.int64]:
        """The number of the shard of each frame."""
        return np.repeat(np.arange(len(self._shards)), [len(shard.frames) for shard in self._shards])

    def download(self, number: int) -> None:
        """Download a shard to this node where it is remote, for reading it soon."""
        os.close(self._store.open(self._shards[number]))  # opening it downloads it

    def hold(self, numbers: Iterable[int]) -> None:
        """Open shards in this process, so that processes forked from it can read them as well."""
        for number in numbers:
            self._open(number)

    def refuse_misfit(self, numbers: Iterable[int]) -> None:
        """Raise ResourceError where this node has no space for these shards at once."""
        self._store.refuse_misfit(self._shards[number] for number in numbers)

    def read(self, index: int) -> Sample:
        """Read one frame."""
        return self._read(index, decode=_from_stored)

    def read_stored(self, index: int) -> Sample:
        """Read one frame, its depth in stored steps, with `depth_scale`."""
        steps = format.STEPS_PER_METRE.get(self.encoding(index))
        if steps is None:
            return self.read(index)  # which says what it can read
        sample = self._read(index, decode=_keep_depth)
        if "depth" in sample:
            sample["depth_scale"] = np.array([steps, 1, 0], np.float32)
        return sample

    def _read(self, index: int, *, decode: Callable[[str, Any, Shard], Any]) -> Sample:
        number, row = self._locate(index)
        shard, handle = self._shards[number], self._open(number)
        frame = shard.frames[row]
        sample: Sample = {"id": frame.id, "scene": frame.scene, "source": frame.source}
        for key in shard.offsets:
            if key in self.keys:
                stored = format.read_stored(shard, handle.number, row, key=key)
                sample[key] = decode(key, stored, shard)  # type: ignore[literal-required]
        if shard.intrinsics is not None and "intrinsics" in self.keys:
            # A copy: a sample belongs to its reader, who may change it in place.
            sample["intrinsics"] = shard.intrinsics[row].copy()
        return sample

    def encoding(self, index: int) -> str:
        """How the depth of a frame is stored."""
        return self._shards[self._locate(index)[0]].encoding

    def stored_depth(self, index: int) -> NDArray[Any]:
        """Frame -> (H,W) depth as stored in its shard, not yet metres"""
        number, row = self._locate(index)
        return format.read_stored(self._shards[number], self._open(number).number, row, key="depth")

    def faults(self, index: int) -> list[str]:
        """The fault of a frame whose bytes are no longer those that were packed."""
        number, row = self._locate(index)
        shard, handle = self._shards[number], self._open(number)
        if format.is_unaltered(shard, handle.number, row):
            return []
        return [f"{shard.path}: altered after it was written (sha256 of the frame does not match); {format.REPACK}"]

    def _locate(self, index: int) -> tuple[int, int]:
        """Index of a frame -> number of its shard, and its row in that shard."""
        number = bisect_right(self._ends, index)
        return number, index - self._ends[number] + len(self._shards[number].frames)

    def _open(self, number: int) -> _Handle:
        shard = self._shards[number]
        # Popped and put back, which moves it to the end of the order of use.
        handle = self._handles.pop(number, None) or _Handle(self._store.open(shard))
        self._handles[number] = handle
        for least_recent in list(self._handles)[:-MOST_OPEN]:
            self._handles.pop(least_recent, None)
        # On the open file, so that one that was replaced since is noticed before its bytes are read.
        size, changed = shard.stamp
        status = os.fstat(handle.number)
        if status.st_size != size or changed not in (None, status.st_mtime_ns):
            raise DataError(f"{shard.path}: changed since the data set was opened; {RESTART}")
        return handle


def _keys(shard: Shard) -> frozenset[str]:
    return frozenset((*shard.offsets, *(("intrinsics",) if shard.intrinsics is not None else ())))


def _from_stored(key: str, stored: Any, shard: Shard) -> Any:
    """(H,W) or (H,W,3) as stored -> as in a sample: float32 metres, int32 ids, uint8 otherwise."""
    if key in format.METRES:
        return encodings.decode(stored, shard.encoding, where=str(shard.path))
    return stored.astype(np.int32) if key in IDS else stored


def _keep_depth(key: str, stored: Any, shard: Shard) -> Any:
    return stored if key == "depth" else _from_stored(key, stored, shard)
