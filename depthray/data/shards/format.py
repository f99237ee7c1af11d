"""The packed form of a data set: HDF5 files of frames of one size, uncompressed, one chunk a sample.

Any HDF5 reader opens a shard. depthray itself does not use one, since the HDF5 library crashes on some damaged files:
after the HDF5 part comes an index, with a checksum, of the position of each sample. Samples are read directly from the
file, which is fast and safe from any number of processes. Each has a SHA-256 of its arrays, for `depthray data check`.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.source import LABELS, Frame, Place
from depthray.errors import DataError
from depthray.storage import os_errors

if TYPE_CHECKING:
    from depthray.batch import Sample

Arrays = dict[str, NDArray[Any]]

FORMAT = "depthray-shard"
VERSION = 1
MAGIC = b"depthray"
TAIL = struct.Struct("<8sQ32s")  # magic, length of the index before it, SHA-256 of that index
ENCODING = "uint16_mm"
FAR_ENCODING = "uint16_256"  # of depth beyond FARTHEST
STEPS_PER_METRE = {ENCODING: 1000, FAR_ENCODING: 256}  # encodings a shard may have, in steps a metre
FARTHEST = 65.535  # metres that 16 bits of millimetres hold
CHANNELS = {"image": (3,), "background": (3,), "depth": (), "sparse": (), "semantics": (), "instances": (), "mask": ()}
CHANNELS |= {"measurable": (), "teacher": (), "sigma": ()}
DTYPES = {"image": "u1", "background": "u1", "depth": "<u2", "sparse": "<u2"}
DTYPES |= {"semantics": "<u2", "instances": "<u2", "mask": "u1", "measurable": "u1"}
DTYPES |= {"teacher": "<f2", "sigma": "<f2"}
METRES = ("depth", "sparse")  # in the encoding of the shard
REPACK = "pack the data again with `depthray data pack`"


class Shard(NamedTuple):
    """The index of an opened shard: enough to read any sample without the HDF5 library."""

    path: Path
    frames: list[Frame]
    size: tuple[int, int]  # height, width
    encoding: str  # of depth and sparse depth
    offsets: dict[str, NDArray[np.int64]]  # by key, of each frame, in bytes
    intrinsics: NDArray[np.float32] | None  # (N,3,3)
    distortion: NDArray[np.float64] | None  # (N,9) lenses of images that are not undistorted
    digests: list[str]
    provenance: dict[str, Any]
    stamp: tuple[int, int | None]  # size in bytes, time of change in ns; None in a cache, where each use changes it
    checksum: bytes  # SHA-256 of the index


def to_stored(sample: Sample, *, where: str, encoding: str = ENCODING) -> Arrays:
    """A sample -> its arrays as stored: (H,W,3) uint8 colour, uint16 depth and ids, uint8 masks, float16 labels."""
    size = sample["image"].shape[:2]
    arrays: Arrays = {}
    for key, channels in CHANNELS.items():
        if key in sample:
            array = sample[key]  # type: ignore[literal-required]
            if array.shape != (*size, *channels):
                raise DataError(f"{where}: {key} has shape {array.shape}, but the image is {size[1]}x{size[0]}")
            if key in METRES:
                arrays[key] = _quantise(array, encoding)
            elif key in LABELS:
                arrays[key] = _halve(array, DTYPES[key])
            else:
                arrays[key] = _narrow(array, DTYPES[key], f"{where}: {key}")
    if "intrinsics" in sample:
        arrays["intrinsics"] = sample["intrinsics"].astype("<f4")
    if "distortion" in sample:
        arrays["distortion"] = sample["distortion"].astype("<f8")
    return arrays


def to_millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(H,W) float metres -> (H,W) uint16 millimetres; beyond 65.535 m, the most that 16 bits hold, 0 = unmeasured."""
    return _quantise(depth, ENCODING)


def _quantise(depth: NDArray[np.float32], encoding: str) -> NDArray[np.uint16]:
    """(H,W) float metres -> (H,W) uint16 in the unit of the encoding; 0 where 16 bits do not hold it."""
    # Zero, not a clamp: a clamp would train the network on a wall at the end of the range.
    rounded = np.rint(
        np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64) * STEPS_PER_METRE[encoding]
    )
    return np.where((rounded >= 0) & (rounded <= 65535), rounded, 0).astype("<u2")


def _halve(metres: NDArray[np.float32], dtype: str) -> NDArray[np.float16]:
    """(H,W) float metres -> (H,W) float16; 0 where it is no distance, or farther than float16 holds."""
    known = np.isfinite(metres) & (metres > 0) & (metres <= np.finfo(dtype).max)
    return np.where(known, metres, 0).astype(dtype)


def sample_digest(arrays: Arrays) -> str:
    """SHA-256 of a sample's stored arrays."""
    total = sha256()
    for key in sorted(arrays):  # by name, as the order of keys is that in which a form happens to read them
        total.update(f"{key}{arrays[key].shape}".encode())
        total.update(np.ascontiguousarray(arrays[key]).data)
    return total.hexdigest()


def content_digest(frames: Sequence[Frame], digests: Sequence[str]) -> str:
    """SHA-256 of the names and the arrays of frames, in their order."""
    return sha256(json.dumps([frames, digests]).encode()).hexdigest()


def open_shard(path: Path) -> Shard:
    """Read the index of a shard; anything but a complete, readable shard is a DataError."""
    with translate_index_errors(path), path.open("rb") as file:
        status = os.fstat(file.fileno())
        return parse_shard(file, path, stamp=(status.st_size, status.st_mtime_ns))


def parse_shard(file: BinaryIO, path: Path, *, stamp: tuple[int, int | None]) -> Shard:
    """The index in a shard, or in only the end of one -> the shard at `path`."""
    size = file.seek(0, os.SEEK_END)
    index = _read_index(file, size)
    if index["version"] != VERSION:
        raise DataError(f"{path}: shard version {index['version']}, this depthray reads {VERSION}; {REPACK}")
    file.seek(size - TAIL.size)
    return _shard(path, index, stamp, read_tail(file.read())[1])


@contextmanager
def translate_index_errors(where: Path | str) -> Iterator[None]:
    """Turn any error of reading an index into a DataError that names the shard."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError) as error:
        why = os_errors.reason(error) if isinstance(error, OSError) else str(error)
        raise DataError(f"{where}: not a complete shard ({why}); remove it and {REPACK}") from None


def read_tail(tail: bytes) -> tuple[int, bytes]:
    """The last bytes of a shard -> length in bytes and SHA-256 of the index before them."""
    magic, length, checksum = TAIL.unpack(tail) if len(tail) == TAIL.size else (b"", 0, b"")
    if magic != MAGIC:
        raise ValueError("cut off, changed by another program, or never a depthray shard")
    return length, checksum


def is_unaltered(shard: Shard, handle: int, row: int) -> bool:
    """Whether the bytes of a frame in the open file `handle` are still those that were packed."""
    arrays = {key: read_stored(shard, handle, row, key=key) for key in shard.offsets}
    if shard.intrinsics is not None:
        arrays["intrinsics"] = shard.intrinsics[row]
    if shard.distortion is not None:
        arrays["distortion"] = shard.distortion[row]
    return sample_digest(arrays) == shard.digests[row]


def read_stored(shard: Shard, handle: int, index: int, *, key: str) -> NDArray[Any]:
    """One array of one sample as stored, (H,W) or (H,W,3), read from the open file `handle`."""
    array = read_at(handle, int(shard.offsets[key][index]), key=key, size=shard.size)
    if array is None:
        raise DataError(f"{shard.path}: ends in the middle of frame {index} '{shard.frames[index].id}'; {REPACK}")
    return array


def read_at(
    handle: int, offset: int, *, key: str, size: tuple[int, int], place: Place | None = None
) -> NDArray[Any] | None:
    """The array (H,W) or (H,W,3) at a position of an open file, in the memory of `place` where that gives some.

    None where the file ends before it does.
    """
    shape = (*size, *CHANNELS[key])
    array = None if place is None else place(key, shape, DTYPES[key])
    if array is None:
        array = np.empty(shape, DTYPES[key])
    # pread moves no file position, which forked processes share.
    return array if os.preadv(handle, [array.data], offset) == array.nbytes else None


def _read_index(file: BinaryIO, size: int) -> dict[str, Any]:
    file.seek(max(size - TAIL.size, 0))
    length, checksum = read_tail(file.read(TAIL.size))
    text = b""
    if length <= size - TAIL.size:  # a damaged length must not become a request for that much memory
        file.seek(size - TAIL.size - length)
        text = file.read(length)
    if sha256(text).digest() != checksum:
        raise ValueError("its index is damaged")
    index: dict[str, Any] = json.loads(text)
    return index


def _shard(path: Path, index: dict[str, Any], stamp: tuple[int, int | None], checksum: bytes) -> Shard:
    height, width = index["size"]
    shard = Shard(
        path=path,
        frames=[Frame(*fields) for fields in index["frames"]],
        size=(height, width),
        encoding=index.get("encoding", ENCODING),  # the first shards had no such field, and only millimetres
        offsets={key: np.array(offsets, np.int64) for key, offsets in index["offsets"].items()},
        intrinsics=np.array(index["intrinsics"], np.float32) if index["intrinsics"] else None,
        distortion=np.array(index["distortion"], np.float64) if index.get("distortion") else None,
        digests=index["digests"],
        provenance=index["provenance"],
        stamp=stamp,
        checksum=checksum,
    )
    for key, offsets in shard.offsets.items():
        # Checked once, for all frames: an index is not trusted to stay within its file.
        end = stamp[0] - _nbytes(key, shard.size)
        if len(offsets) != len(shard.frames) or offsets.min() < 0 or offsets.max() > end:
            raise ValueError(f"{key} is outside the file")
    return shard


def _nbytes(key: str, size: tuple[int, int]) -> int:
    return math.prod((*size, *CHANNELS[key])) * np.dtype(DTYPES[key]).itemsize


def _narrow(array: NDArray[Any], dtype: str, where: str) -> NDArray[Any]:
    """(H,W) ids or (H,W,3) colours -> the same in a narrower dtype; a DataError where it does not hold them."""
    limits = np.iinfo(dtype)
    if array.dtype.kind not in "ubi" or array.min() < limits.min or array.max() > limits.max:
        values = f"{array.dtype} {array.min()} to {array.max()}"
        raise DataError(f"{where} has values {values}, but shards hold {limits.min} to {limits.max}")
    return array.astype(dtype)
