"""Downloaded files on a node's own disk, shared by all its processes and bounded; the least recently used go first.

A process holds a shared lock on every file it has open, and only files that nobody holds are removed to free space. A
file gets its name when it is complete; while it is downloaded, other processes wait for the lock of its name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from depthray.errors import ResourceError
from depthray.storage.environment import CACHE, CACHE_GB, GB, cache_bytes, cache_folder
from depthray.storage.file_lock import lock, try_lock
from depthray.storage.os_errors import translate_os_errors

SPARE = 256 * 2**20  # bytes left free on the disk, for everybody else
DOWNLOADING, RESERVED = ".fetching", "reserved"


class CachedFile(NamedTuple):
    """A file of the cache, and how it is downloaded."""

    path: Path  # in the cache
    size: int  # bytes
    download: Callable[[Path], None]  # writes the file, complete and checked, to a path


class Cache:
    """The files under a folder, at most `limit` bytes of them; None leaves the size to the disk."""

    def __init__(self, root: Path, *, limit: int | None = None) -> None:
        self.root, self.limit = root, limit

    def open(self, file: CachedFile) -> int:
        """The file, open for reading and kept from removal until it is closed; the first to open it downloads it."""
        with self._translate_errors():
            # Another process may remove the file between its download and our lock on it: then we download it again.
            while (handle := _open_shared(file.path, file.size)) is None:
                file.path.parent.mkdir(parents=True, exist_ok=True)
                with lock(_lock_of(file.path)):
                    if not file.path.exists():
                        self._download(file)
            # Most file systems no longer keep the time of access, so the time of change stands for the last use.
            with suppress(PermissionError):  # of a cache that another user fills
                os.utime(handle)
            return handle

    def refuse_misfit(self, files: dict[Path, int]) -> None:
        """Raise ResourceError where files (path -> bytes) that are all in use at once do not fit."""
        total = sum(files.values())
        missing = sum(size for path, size in files.items() if not path.exists())
        with self._translate_errors():
            free = self._free() - SPARE + sum(_bytes(path) for path in self._files() if path not in files)
        if self.limit is not None and total > self.limit:
            raise self._too_small(f"{total / GB:.2f} GB of shards", f"{CACHE_GB} allows {self.limit / GB:g} GB")
        if missing > free:
            raise self._too_small(f"{missing / GB:.2f} GB of shards", f"the disk has space for {max(free, 0) / GB:.2f}")

    def _download(self, file: CachedFile) -> None:
        work = _work_of(file.path)
        shutil.rmtree(work, ignore_errors=True)
        try:
            self._reserve(work, file)
            file.download(work / file.path.name)
            os.replace(work / file.path.name, file.path)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _reserve(self, work: Path, file: CachedFile) -> None:
        """Free space for a file and reserve it: its working folder has an empty file of its size."""
        # One lock for the whole cache, but only while space is counted: two downloads must not reserve the same bytes.
        with lock(self.root / ".lock"):
            self._remove_abandoned()
            unused = sorted(self._files(), key=_last_use)
            while why := self._why_full(file.size):
                if not any(_try_remove(path) for path in unused):
                    raise self._too_small(f"{file.path.name} of {file.size / GB:.3f} GB", why)
                unused = [path for path in unused if path.exists()]
            work.mkdir()
            with (work / RESERVED).open("wb") as reserved:
                reserved.truncate(file.size)  # a sparse file: it is counted, and takes no space of its own

    def _why_full(self, size: int) -> str:
        reserved = sum(map(_bytes, self.root.glob(f"*/.*{DOWNLOADING}/{RESERVED}")))
        used = reserved + sum(map(_bytes, self._files()))
        if self.limit is not None and used + size > self.limit:
            return f"{CACHE_GB} allows {self.limit / GB:g} GB, of which {used / GB:.3f} are in use"
        if reserved + size + SPARE > self._free():
            return f"the disk has {self._free() / GB:.2f} GB free"
        return ""

    def _too_small(self, what: str, why: str) -> ResourceError:
        return ResourceError(
            f"{self.root}: no space for {what}: {why}; free space, raise {CACHE_GB}, name a folder on a bigger disk in "
            f"{CACHE}, or read fewer shards at once with data.order=shards and smaller ones (--frames-per-shard)"
        )

    def _translate_errors(self) -> AbstractContextManager[None]:
        advice = f"{{remedy}}, or set {CACHE}"
        return translate_os_errors(self.root, to=ResourceError, doing="keep shards there", advice=advice)

    def _files(self) -> list[Path]:
        return list(self.root.glob("*/*.h5"))

    def _free(self) -> int:
        self.root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.root).free

    def _remove_abandoned(self) -> None:
        """Remove what processes that were killed while they downloaded have left."""
        for work in self.root.glob(f"*/.*{DOWNLOADING}"):
            name = work.name.removeprefix(".").removesuffix(DOWNLOADING)
            with lock(_lock_of(work.parent / name), wait=False) as locked:
                if locked:
                    shutil.rmtree(work, ignore_errors=True)


def node_cache() -> Cache:
    """The cache of shards of this machine, as the environment sets it."""
    return Cache(cache_folder() / "data", limit=cache_bytes())


def _bytes(path: Path) -> int:
    """The size of a file, 0 where another process has just removed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last_use(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _work_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{DOWNLOADING}")


def _open_shared(path: Path, size: int) -> int | None:
    """The file, open and under a shared lock; None where there is none (any more). One of another size is removed."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(handle, fcntl.LOCK_SH)
    status = os.fstat(handle)
    if status.st_nlink and status.st_size == size:
        return handle
    if status.st_nlink:  # else it was removed between the two calls
        path.unlink(missing_ok=True)
    os.close(handle)
    return None


def _try_remove(path: Path) -> bool:
    """Whether a file was removed: it was there, and no process held it."""
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        try:
            # Readers hold shared locks: whoever gets an exclusive one at once is alone with the file.
            if try_lock(handle, wait=False):
                path.unlink()
                return True
        finally:
            os.close(handle)
    return False
