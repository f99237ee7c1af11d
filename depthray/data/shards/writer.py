"""Writes shards: the HDF5 part, the index after it, and the final name only when both are complete."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py

from depthray.data.shards.format import (
    CHANNELS,
    ENCODING,
    FORMAT,
    MAGIC,
    TAIL,
    VERSION,
    Arrays,
    content_digest,
    sample_digest,
)
from depthray.data.source import Frame
from depthray.errors import ResourceError
from depthray.storage.os_errors import translate_os_errors


class RangeWriter:
    """The unfinished shards of a range of frames, one for each shape of sample."""

    def __init__(
        self, out: Path, number: int, provenance: Mapping[str, Any], capacity: int, *, encoding: str = ENCODING
    ) -> None:
        self._out = out
        self._number = number
        self._provenance = provenance
        self._capacity = capacity
        self._encoding = encoding
        self._open: dict[Any, _ShardWriter] = {}

    def __enter__(self) -> RangeWriter:
        with translate_write_errors(self._out):
            for stale in self._out.glob(f".tmp-{self._number:05d}-*"):  # of a worker that was killed
                stale.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for writer in self._open.values():
            writer.abandon()

    def add(self, frame: Frame, arrays: Arrays) -> None:
        """Append a sample to the shard of its shape."""
        shapes = tuple((key, array.shape) for key, array in arrays.items())
        if shapes not in self._open:
            # A name of its own: a task that Ray starts again may run while the lost one still writes.
            temporary = self._out / f".tmp-{self._number:05d}-{uuid.uuid4().hex}"
            self._open[shapes] = _ShardWriter(temporary, arrays, self._capacity, encoding=self._encoding)
        self._open[shapes].add(frame, arrays)

    def finish(self, skipped: Iterable[str]) -> None:
        """Complete the shards, in the order in which their shapes came, and record the frames that are not in them."""
        left_out = list(skipped)
        provenance = {**self._provenance, **({"skipped": left_out} if left_out else {})}
        for index, shapes in enumerate(list(self._open)):
            name = f"shard-{self._number:05d}{f'-{index}' if index else ''}.h5"
            self._open[shapes].finish(self._out / name, provenance)
            del self._open[shapes]


def prepare_folder(out: Path) -> None:
    """Create the folder of the shards, and remove the temporary files that a killed call left there."""
    with translate_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for stale in out.glob(".tmp-*"):
            stale.unlink()


class _ShardFile(io.FileIO):
    """The file HDF5 writes to. HDF5 crashes on a full disk, so an error is hidden from it and kept for `check`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data)
        try:
            done = 0
            while self._error is None and done < view.nbytes:
                done += super().write(view[done:]) or 0
        except OSError as error:
            self._error = error
        return view.nbytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self._error is None else 0
        except OSError as error:
            self._error = error
            return 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        done = super().readinto(view) or 0
        # Zeros where nothing was written: HDF5 must get through to `close`, after which `check` raises.
        view[done:] = bytes(view.nbytes - done)
        return view.nbytes

    def check(self) -> None:
        """Raise the first error of the file, if there was one."""
        if self._error is not None:
            raise self._error


class _ShardWriter:
    """A shard being written under a temporary name."""

    def __init__(self, temporary: Path, arrays: Arrays, capacity: int, *, encoding: str) -> None:
        self._temporary = temporary
        self._out = out = temporary.parent
        self._encoding = encoding
        self._frames: list[Frame] = []
        self._digests: list[str] = []
        with translate_write_errors(out):
            self._disk = _ShardFile(self._temporary)
        with _interrupts_held_back():
            self._file = h5py.File(self._disk, "w")
            for key, array in arrays.items():
                # One uncompressed chunk a sample: its bytes are contiguous, which is what reading without HDF5 relies
                # on. With gzip, HDF5 itself reads depth at an eighth of the speed.
                self._file.create_dataset(key, (capacity, *array.shape), array.dtype, chunks=(1, *array.shape))

    @property
    def count(self) -> int:
        """Frames so far."""
        return len(self._frames)

    def add(self, frame: Frame, arrays: Arrays) -> None:
        """Append a sample."""
        with _interrupts_held_back():
            for key, array in arrays.items():
                self._file[key][self.count] = array
        with translate_write_errors(self._out):
            self._disk.check()
        self._frames.append(frame)
        self._digests.append(sample_digest(arrays))

    def finish(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Complete the file and give it its final name: from then on it is part of the set."""
        with _interrupts_held_back():
            self._write_texts(provenance)
            index = self._index(provenance)
            self._file.close()
            self._disk.close()
        with translate_write_errors(path):
            self._disk.check()
            _append(self._temporary, index)
            # Atomic: the name appears with the complete file or not at all.
            os.rename(self._temporary, path)
            _sync(self._out)

    def abandon(self) -> None:
        """Drop the unfinished file."""
        with _interrupts_held_back():
            self._file.close()
            self._disk.close()
            self._temporary.unlink(missing_ok=True)

    def _write_texts(self, provenance: Mapping[str, Any]) -> None:
        """The facts of the frames and of the shard, for readers that know HDF5 but not the index."""
        for data in self._file.values():
            # Created for a full range, of which some frames may have been skipped.
            data.resize(self.count, axis=0)
        for position, name in enumerate(Frame._fields):
            self._file.create_dataset(name, data=[frame[position] for frame in self._frames], dtype=h5py.string_dtype())
        self._file.create_dataset("sha256", data=self._digests, dtype=h5py.string_dtype())
        self._file.attrs.update(
            format=FORMAT,
            version=VERSION,
            encoding=self._encoding,
            provenance=json.dumps(dict(provenance), sort_keys=True),
            sha256=content_digest(self._frames, self._digests),
        )
        self._file.flush()  # chunks that are not written yet have no position, and the index needs it

    def _index(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        keys = [key for key in CHANNELS if key in self._file]
        return {
            "version": VERSION,
            "encoding": self._encoding,
            "size": self._file["image"].shape[1:3],
            "frames": self._frames,
            "offsets": {key: _offsets(self._file[key]) for key in keys},
            "intrinsics": self._file["intrinsics"][:].tolist() if "intrinsics" in self._file else None,
            **({"distortion": self._file["distortion"][:].tolist()} if "distortion" in self._file else {}),
            "digests": self._digests,
            "provenance": dict(provenance),
        }


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C, or Ray that cancels a task, wait: HDF5 loses a KeyboardInterrupt of `_ShardFile`, and may crash."""
    # Another thread is not interrupted, and a handler that is not Python's cannot be put back.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    held: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *of_signal: held.append(of_signal))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held and callable(before):
        before(*held[0])


def translate_write_errors(path: Path) -> AbstractContextManager[None]:
    """Turn an error of the file system into a ResourceError that names the path."""
    advice = "free space or choose another folder"
    return translate_os_errors(path, to=ResourceError, doing="be written", advice=advice)


def _offsets(data: Any) -> list[int]:
    """The position of each sample in the file, in bytes."""
    offsets = [-1] * len(data)
    # One pass over all chunks, not a search for each.
    data.id.chunk_iter(lambda chunk: offsets.__setitem__(chunk.chunk_offset[0], chunk.byte_offset))
    return offsets


def _append(path: Path, index: dict[str, Any]) -> None:
    """Append the index to the HDF5 part, where the HDF5 library does not read."""
    text = json.dumps(index, sort_keys=True).encode()
    with path.open("ab") as file:
        file.write(text + TAIL.pack(MAGIC, len(text), sha256(text).digest()))
        file.flush()
        os.fsync(file.fileno())  # before the rename, or a power failure could leave the name without the bytes


def _sync(folder: Path) -> None:
    """fsync a folder, without which a new name in it may be lost in a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
