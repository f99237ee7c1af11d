"""A folder of HDF5 shards, as `depthray data pack` writes them."""

from __future__ import annotations

import os
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings, shards
from depthray.data.sources import wanted
from depthray.data.sources._files import root_of
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.sections import Data

IDS = ("semantics", "instances")


def open_source(section: Data) -> Shards:
    """The shards at `section.root`, a folder or one file."""
    return Shards(root_of(section), wanted(section))


def fits(root: Path) -> bool:
    """Whether there are shards, or the path is one."""
    return root.suffix == ".h5" or any(root.glob("*.h5"))


class _Handle:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class Shards:
    """A data set of shards. See `depthray.data.sources.Source`."""

    def __init__(self, root: Path, keys: frozenset[str]) -> None:
        paths = [root] if root.is_file() else sorted(root.glob("*.h5"))
        if not paths:
            raise DataError(f"{root}: no *.h5 shards there; make them with `depthray data pack`")
        self._shards = [shards.open_shard(path) for path in paths]
        self._ends = list(accumulate(len(shard.frames) for shard in self._shards))
        self._handles: dict[int, _Handle] = {}
        self.frames = [frame for shard in self._shards for frame in shard.frames]
        self.keys = keys.intersection(*(_keys(shard) for shard in self._shards))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}  # a process that gets a copy opens the files itself

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the frames and their order, however they are cut into shards."""
        return shards.content(self.frames, [digest for shard in self._shards for digest in shard.digests])

    def read(self, index: int) -> Sample:
        """Read one frame."""
        number, row = self._place(index)
        shard, handle = self._shards[number], self._open(number)
        frame = shard.frames[row]
        sample: Sample = {"id": frame.id, "scene": frame.scene, "source": frame.source}
        for key in shard.offsets:
            if key in self.keys:
                stored = shards.read_stored(shard, handle, row, key=key)
                sample[key] = _from_stored(key, stored, shard)  # type: ignore[literal-required]
        if shard.intrinsics is not None and "intrinsics" in self.keys:
            sample["intrinsics"] = shard.intrinsics[row].copy()
        return sample

    def encoding(self, index: int) -> str:
        """How the depth of a frame is stored."""
        return self._shards[self._place(index)[0]].encoding

    def stored_depth(self, index: int) -> NDArray[Any]:
        """(H,W) depth of a frame in the numbers its shard holds."""
        number, row = self._place(index)
        return shards.read_stored(self._shards[number], self._open(number), row, key="depth")

    def faults(self, index: int) -> list[str]:
        """Whether the bytes are still those that were packed."""
        number, row = self._place(index)
        shard, handle = self._shards[number], self._open(number)
        arrays = {key: shards.read_stored(shard, handle, row, key=key) for key in shard.offsets}
        if shard.intrinsics is not None:
            arrays["intrinsics"] = shard.intrinsics[row]
        if shards.digest(arrays) == shard.digests[row]:
            return []
        return [f"{shard.path}: altered after it was written (sha256 of the frame does not match); {shards.AGAIN}"]

    def _place(self, index: int) -> tuple[int, int]:
        """Number of a frame -> number of its shard and of its row in there."""
        number = bisect_right(self._ends, index)
        return number, index - self._ends[number] + len(self._shards[number].frames)

    def _open(self, number: int) -> int:
        shard = self._shards[number]
        try:
            handle = self._handles.get(number) or self._handles.setdefault(number, _Handle(shard.path))
        except OSError as error:
            raise DataError(f"{shard.path}: {error.strerror}; it was there when the data set was opened") from None
        status = os.fstat(handle.number)
        if (status.st_size, status.st_mtime_ns) != shard.stamp:
            raise DataError(f"{shard.path}: changed since the data set was opened; start again on settled data")
        return handle.number


def _keys(shard: shards.Shard) -> frozenset[str]:
    return frozenset((*shard.offsets, *(("intrinsics",) if shard.intrinsics is not None else ())))


def _from_stored(key: str, stored: Any, shard: shards.Shard) -> Any:
    """A stored array (H,W[,3]) -> as a sample has it: float32 metres, int32 ids, uint8 otherwise."""
    if key in shards.METRES:
        return encodings.decode(stored, shard.encoding, where=str(shard.path))
    return stored.astype(np.int32) if key in IDS else stored
