"""Fetched files on a node's own disk, shared by all its processes, bounded; the longest unused go first.

A process holds a shared lock on every file it has open, and whoever makes room takes only files that nobody holds. A
file gets its name when it is whole; while it is fetched, whoever else wants it waits for the lock of its name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from depthray.errors import ResourceError, UsageError

PLACE, BOUND = "DEPTHRAY_CACHE", "DEPTHRAY_CACHE_GB"
SPARE = 256 * 2**20  # bytes left free on the disk, for everybody else
FETCHING, RESERVED = ".fetching", "reserved"
GB = 1e9


class Wanted(NamedTuple):
    """A file that the cache is asked for."""

    path: Path  # in the cache
    size: int  # bytes
    fetch: Callable[[Path], None]  # writes the file, whole and checked, to a path


class Cache:
    """The files under a folder, at most `limit` bytes of them; None leaves the size to the disk."""

    def __init__(self, root: Path, *, limit: int | None = None) -> None:
        self.root, self.limit = root, limit

    def open(self, wanted: Wanted) -> int:
        """The file, open for reading and kept from removal until it is closed; fetched by whoever wants it first."""
        with _explained(self.root):
            while (handle := _held(wanted.path, wanted.size)) is None:
                wanted.path.parent.mkdir(parents=True, exist_ok=True)
                with _locked(_lock_of(wanted.path)):
                    if not wanted.path.exists():
                        self._fetch(wanted)
            with suppress(PermissionError):  # of a cache that another user fills
                os.utime(handle)
            return handle

    def refuse_misfit(self, files: dict[Path, int]) -> None:
        """Raise ResourceError where files (path -> bytes) that are all in use at once do not fit."""
        total = sum(files.values())
        missing = sum(size for path, size in files.items() if not path.exists())
        with _explained(self.root):
            free = self._free() - SPARE + sum(_bytes(path) for path in self._files() if path not in files)
        if self.limit is not None and total > self.limit:
            raise self._too_small(f"{total / GB:.2f} GB of shards", f"{BOUND} allows {self.limit / GB:g} GB")
        if missing > free:
            raise self._too_small(f"{missing / GB:.2f} GB of shards", f"the disk has room for {max(free, 0) / GB:.2f}")

    def _fetch(self, wanted: Wanted) -> None:
        work = _work_of(wanted.path)
        shutil.rmtree(work, ignore_errors=True)
        try:
            self._reserve(work, wanted)
            wanted.fetch(work / wanted.path.name)
            os.replace(work / wanted.path.name, wanted.path)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _reserve(self, work: Path, wanted: Wanted) -> None:
        """Make room for a file, and keep it: its working folder has an empty file of its size."""
        with _locked(self.root / ".lock"):
            self._remove_abandoned()
            unused = sorted(self._files(), key=_last_use)
            while why := self._why_no_room(wanted.size):
                if not any(_removed(path) for path in unused):
                    raise self._too_small(f"{wanted.path.name} of {wanted.size / GB:.3f} GB", why)
                unused = [path for path in unused if path.exists()]
            work.mkdir()
            with (work / RESERVED).open("wb") as file:
                file.truncate(wanted.size)

    def _why_no_room(self, size: int) -> str:
        reserved = sum(map(_bytes, self.root.glob(f"*/.*{FETCHING}/{RESERVED}")))
        used = reserved + sum(map(_bytes, self._files()))
        if self.limit is not None and used + size > self.limit:
            return f"{BOUND} allows {self.limit / GB:g} GB, of which {used / GB:.3f} are in use"
        if reserved + size + SPARE > self._free():
            return f"the disk has {self._free() / GB:.2f} GB free"
        return ""

    def _too_small(self, what: str, why: str) -> ResourceError:
        return ResourceError(
            f"{self.root}: no room for {what}: {why}; free space, raise {BOUND}, name a folder on a bigger disk in "
            f"{PLACE}, or read fewer shards at once with data.order=shards and smaller ones (--frames-per-shard)"
        )

    def _files(self) -> list[Path]:
        return list(self.root.glob("*/*.h5"))

    def _free(self) -> int:
        self.root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.root).free

    def _remove_abandoned(self) -> None:
        """Remove what processes that were killed while they fetched have left."""
        for work in self.root.glob(f"*/.*{FETCHING}"):
            name = work.name.removeprefix(".").removesuffix(FETCHING)
            with _locked(_lock_of(work.parent / name), wait=False) as free:
                if free:
                    shutil.rmtree(work, ignore_errors=True)


def of_this_node() -> Cache:
    """The cache of shards, where the environment says, or in the home folder."""
    root = Path(os.environ.get(PLACE) or Path.home() / ".cache" / "depthray")
    text = os.environ.get(BOUND, "")
    try:
        limit = int(float(text) * GB) if text else None
    except ValueError:
        limit = 0
    if limit is not None and limit <= 0:
        raise UsageError(f"{BOUND}={text}: give the size of the cache in GB, e.g. 200")
    return Cache(Path(os.path.abspath(root)) / "data", limit=limit)


def _bytes(path: Path) -> int:
    """Of a file, 0 where another process has just removed it."""
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
    return path.with_name(f".{path.name}{FETCHING}")


def _held(path: Path, size: int) -> int | None:
    """The file, open and held against removal; None where there is none (any more). One of another size is removed."""
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


def _removed(path: Path) -> bool:
    """Whether a file that nobody holds was there to remove."""
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        try:
            if _try_lock(handle, wait=False):
                path.unlink()
                return True
        finally:
            os.close(handle)
    return False


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """The lock of a file of this name, and whether it was to be had; it ends with the process at the latest."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        had = _try_lock(handle, wait=wait)
        yield had
    finally:
        # By itself the lock would last until loader processes that were forked meanwhile have closed the file too.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _try_lock(handle: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Turn an error of the file system into a ResourceError that says what the user can do about it."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free space" if full else "make it writable"
        reason = error.strerror or str(error)
        raise ResourceError(f"{root}: cannot keep shards there: {reason}; {remedy}, or set {PLACE}") from None
