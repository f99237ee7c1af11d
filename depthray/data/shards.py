"""The packed form of a data set: HDF5 files of frames of one size, uncompressed, one chunk a sample.

Any HDF5 reader opens a shard. depthray itself learns once where each chunk lies and then reads the bytes directly: this
is fast, shares no HDF5 handle and is safe from any number of processes. Each sample carries a SHA-256 of its arrays
(`sha256`), and the file one of these and all its words (attribute `sha256`), which is checked whenever it is opened.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from depthray.data.sources import Frame, Source
from depthray.errors import DataError, ResourceError

if TYPE_CHECKING:
    from depthray.batch import Sample

Arrays = dict[str, NDArray[Any]]

FORMAT = "depthray-shard"
VERSION = 1
ENCODING = "uint16_mm"
CHANNELS = {"image": (3,), "background": (3,), "depth": (), "semantics": (), "instances": (), "mask": ()}
DTYPES = {"image": "u1", "background": "u1", "depth": "<u2", "semantics": "<u2", "instances": "<u2", "mask": "u1"}
WORDS = Frame._fields
AGAIN = "pack the data again with `depthray data pack`"


class Shard(NamedTuple):
    """What is known of a shard once it has been opened: enough to read any sample without HDF5."""

    path: Path
    frames: list[Frame]
    size: tuple[int, int]  # height, width
    offsets: dict[str, NDArray[np.int64]]  # by key, of each frame, in bytes
    intrinsics: NDArray[np.float32] | None  # (N,3,3)
    digests: list[str]
    sha256: str
    provenance: dict[str, Any]
    stamp: tuple[int, int]  # size in bytes, time of change in ns


def pack(
    source: Source,
    out: Path,
    *,
    provenance: Mapping[str, Any],
    frames_per_shard: int = 512,
    advance: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write all frames as shards into `out`. Whole shards of an interrupted earlier call are kept, not made again."""
    facts = {**provenance, "fingerprint": source.fingerprint}
    done = _packed_before(out, source.fingerprint)
    open_writers: dict[Any, _Writer] = {}
    try:
        for index, frame in enumerate(source.frames):
            if frame.id not in done:
                arrays = to_stored(source.read(index), where=f"frame '{frame.id}'")
                group = tuple((key, array.shape) for key, array in arrays.items())
                if group not in open_writers:
                    open_writers[group] = _Writer(out, arrays, frames_per_shard)
                writer = open_writers[group]
                writer.add(frame, arrays)
                if writer.count == frames_per_shard:
                    open_writers.pop(group).finish(facts)
            advance()
        while open_writers:
            open_writers.popitem()[1].finish(facts)
    finally:
        for writer in open_writers.values():
            writer.abandon()
    return sorted(out.glob("*.h5"))


def to_stored(sample: Sample, *, where: str) -> Arrays:
    """A sample -> its arrays as stored: (H,W,3) uint8 colour, (H,W) uint16 mm depth, uint16 ids, uint8 mask."""
    size = sample["image"].shape[:2]
    arrays: Arrays = {}
    for key, channels in CHANNELS.items():
        if key in sample:
            array = sample[key]  # type: ignore[literal-required]
            if array.shape != (*size, *channels):
                raise DataError(f"{where}: {key} has shape {array.shape}, but the image is {size[1]}x{size[0]}")
            arrays[key] = millimetres(array) if key == "depth" else _whole(array, DTYPES[key], f"{where}: {key}")
    if "intrinsics" in sample:
        arrays["intrinsics"] = sample["intrinsics"].astype("<f4")
    return arrays


def millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(H,W) float metres -> (H,W) uint16 millimetres; what 16 bits cannot say (beyond 65.535 m) is 0, unmeasured."""
    rounded = np.rint(np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64) * 1000)
    return np.where((rounded >= 0) & (rounded <= 65535), rounded, 0).astype("<u2")


def digest(arrays: Arrays) -> str:
    """SHA-256 of a sample's stored arrays."""
    total = sha256()
    for key in sorted(arrays):
        total.update(f"{key}{arrays[key].shape}".encode())
        total.update(np.ascontiguousarray(arrays[key]).data)
    return total.hexdigest()


def open_shard(path: Path) -> Shard:
    """Read all of a shard but its samples; whatever is not a whole, unaltered, readable shard is a DataError."""
    try:
        status = os.stat(path)
        with h5py.File(path, "r", locking=False) as file:
            _refuse_foreign(path, file)
            return _describe(path, file, (status.st_size, status.st_mtime_ns))
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: damaged or incomplete shard ({reason}); remove it and {AGAIN}") from None


def read_stored(shard: Shard, handle: int, index: int, *, key: str) -> NDArray[Any]:
    """One array of one sample, read from the open file `handle`."""
    array = np.empty((*shard.size, *CHANNELS[key]), DTYPES[key])
    read = os.preadv(handle, [array.data], int(shard.offsets[key][index]))
    if read != array.nbytes:
        raise DataError(f"{shard.path}: ends in the middle of frame {index} '{shard.frames[index].id}'; {AGAIN}")
    return array


def _describe(path: Path, file: Any, stamp: tuple[int, int]) -> Shard:
    words = [[str(word) for word in file[name].asstr()[:]] for name in WORDS]
    frames = [Frame(*values) for values in zip(*words, strict=True)]
    keys = [key for key in CHANNELS if key in file]
    shard = Shard(
        path=path,
        frames=frames,
        size=(int(file["image"].shape[1]), int(file["image"].shape[2])),
        offsets={key: _offsets(path, file, key, len(frames)) for key in keys},
        intrinsics=file["intrinsics"][:].astype(np.float32) if "intrinsics" in file else None,
        digests=[str(word) for word in file["sha256"].asstr()[:]],
        sha256=str(file.attrs["sha256"]),
        provenance=json.loads(file.attrs["provenance"]),
        stamp=stamp,
    )
    if _content(shard.frames, shard.digests, shard.provenance) != shard.sha256:
        raise DataError(f"{path}: altered after it was written (its sha256 does not match); remove it and {AGAIN}")
    return shard


def _refuse_foreign(path: Path, file: Any) -> None:
    if file.attrs.get("format") != FORMAT or "depth" not in file or "image" not in file:
        raise DataError(f"{path}: HDF5, but not a depthray shard; convert it to files with an index and {AGAIN}")
    if file.attrs["version"] != VERSION or file.attrs["encoding"] != ENCODING:
        raise DataError(f"{path}: shard version {file.attrs['version']}, this depthray reads {VERSION}; {AGAIN}")
    for name in file:
        # Links may lead to any file of the machine; a shard has no use for them.
        if type(file.get(name, getlink=True)) is not h5py.HardLink or not isinstance(file[name], h5py.Dataset):
            raise DataError(f"{path}: '{name}' is a link or group, which shards do not have; {AGAIN}")


def _offsets(path: Path, file: Any, key: str, count: int) -> NDArray[np.int64]:
    """Where each sample's bytes begin: (N,) int64."""
    data = file[key]
    shape = (count, *file["image"].shape[1:3], *CHANNELS[key])
    if data.shape != shape or data.dtype != np.dtype(DTYPES[key]):
        raise DataError(f"{path}: {key} is {data.dtype} {data.shape}, wanted {np.dtype(DTYPES[key])} {shape}; {AGAIN}")
    if data.chunks != (1, *shape[1:]) or data.id.get_create_plist().get_nfilters() or file.userblock_size:
        raise DataError(f"{path}: {key} is compressed or cut otherwise than one chunk a sample; {AGAIN}")
    offsets = np.full(count, -1, np.int64)
    data.id.chunk_iter(lambda chunk: offsets.__setitem__(chunk.chunk_offset[0], chunk.byte_offset))
    nbytes = int(np.prod(shape[1:])) * data.dtype.itemsize
    if count and (offsets.min() < 0 or offsets.max() + nbytes > os.stat(path).st_size):
        raise DataError(f"{path}: {key} is cut off or has gaps; remove it and {AGAIN}")
    return offsets


def _content(frames: list[Frame], digests: list[str], provenance: Mapping[str, Any]) -> str:
    return sha256(json.dumps([frames, digests, provenance], sort_keys=True).encode()).hexdigest()


def _whole(array: NDArray[Any], dtype: str, where: str) -> NDArray[Any]:
    """Ids or colours (H,W[,3]) -> the same in a narrower dtype, refused where it does not hold them."""
    limits = np.iinfo(dtype)
    if array.dtype.kind not in "ubi" or array.min() < limits.min or array.max() > limits.max:
        found = f"{array.dtype} {array.min()} to {array.max()}"
        raise DataError(f"{where} has values {found}, but shards hold {limits.min} to {limits.max}")
    return array.astype(dtype)


def _packed_before(out: Path, fingerprint: str) -> set[str]:
    """Ids in the whole shards of an interrupted call; its unfinished files are removed."""
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob(".tmp-*"):
            stale.unlink()
    shards = [open_shard(path) for path in sorted(out.glob("*.h5"))]
    for shard in shards:
        if shard.provenance.get("fingerprint") != fingerprint:
            raise DataError(f"{shard.path}: packed from other, or since changed, data; choose another folder")
    return {frame.id for shard in shards for frame in shard.frames}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error}; free space or choose another folder") from None


class _Writer:
    """A shard being written under a temporary name."""

    def __init__(self, out: Path, arrays: Arrays, capacity: int) -> None:
        self._out = out
        self._temporary = out / f".tmp-{uuid.uuid4().hex}"
        self._frames: list[Frame] = []
        self._digests: list[str] = []
        with _writing(out):
            self._file = h5py.File(self._temporary, "w", locking=False)
        for key, array in arrays.items():
            self._file.create_dataset(key, (capacity, *array.shape), array.dtype, chunks=(1, *array.shape))

    @property
    def count(self) -> int:
        """Frames so far."""
        return len(self._frames)

    def add(self, frame: Frame, arrays: Arrays) -> None:
        """Append a sample."""
        with _writing(self._temporary):
            for key, array in arrays.items():
                self._file[key][self.count] = array
        self._frames.append(frame)
        self._digests.append(digest(arrays))

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Complete the file and give it its name: from then on it counts."""
        number = 0
        while (path := self._out / f"shard-{number:05d}.h5").exists():
            number += 1
        with _writing(path):
            self._complete(provenance)
            _sync(self._temporary)
            os.rename(self._temporary, path)
            _sync(self._out)

    def abandon(self) -> None:
        """Drop the unfinished file."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _complete(self, provenance: Mapping[str, Any]) -> None:
        for data in self._file.values():
            data.resize(self.count, axis=0)
        for position, name in enumerate(WORDS):
            self._words(name, [frame[position] for frame in self._frames])
        self._words("sha256", self._digests)
        self._file.attrs.update(
            format=FORMAT,
            version=VERSION,
            encoding=ENCODING,
            provenance=json.dumps(dict(provenance), sort_keys=True),
            sha256=_content(self._frames, self._digests, provenance),
        )
        self._file.close()

    def _words(self, name: str, words: list[str]) -> None:
        self._file.create_dataset(name, data=words, dtype=h5py.string_dtype())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
