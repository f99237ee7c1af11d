"""Files that are on the disk when they are said to be, digested while they are written."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, TypeVar
from uuid import uuid4

from depthray.errors import CheckpointError

T = TypeVar("T")
PAUSE = 0.5  # seconds after the first failure of a file system; up to ten times that later
UNFINISHED = ".writing-"  # how the names of files begin that are not whole yet
_FULL, _CLOSED = "free some space there", "give a folder that can be written to"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.ENOTDIR: _CLOSED,
    errno.EEXIST: _CLOSED,
}

# What may pass without anybody starting training again: a server that is away, a disk that somebody makes room on.
_NAMES = """EAGAIN EBUSY EINTR EIO ENOSPC EDQUOT EROFS ESTALE ETIMEDOUT ENODEV ENXIO ENOTCONN ECONNRESET ECONNREFUSED
ECONNABORTED EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH EREMOTEIO ENOLCK ESHUTDOWN"""
_PASSING = {getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name)}


class Hashed(io.RawIOBase):
    """A file being written and digested at once. An error of the file is kept in `error`, and writing goes idle."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest, self.size = file, sha256(), 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Append bytes. Does not raise: torch.save calls it from C++, where an exception ends in undefined states."""
        try:
            if self.error is None:
                self.file.write(data)
                self.digest.update(data)
        except OSError as error:
            self.error = error
        self.size += len(data)
        return len(data)


def write_file(path: Path, fill: Callable[[Hashed], object]) -> FileRecord:
    """Create a file, let `fill` write it, and see it to the disk."""
    with path.open("xb") as file:
        hashed = Hashed(file)
        fill(hashed)
        if hashed.error:
            raise hashed.error
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(hashed.size, hashed.digest.hexdigest())


def replace(path: Path, data: bytes) -> None:
    """Write a file that readers see in whole, old or new."""
    temporary = path.with_name(f"{UNFINISHED}{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """See the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remedy(error: OSError) -> str:
    """What the user can do about an error of the file system; "" where nothing is known."""
    return _REMEDIES.get(error.errno or 0, "")


def passing(error: OSError) -> bool:
    """Whether an error of the file system may go away by itself, as when a file server is away for a while."""
    return error.errno in _PASSING


class Trials:
    """Does things on a file system that may be away for a while: again and again, until `patience` seconds are over."""

    def __init__(self, patience: float, say: Callable[[str], None]) -> None:
        self.patience, self.say = patience, say

    def run(self, action: Callable[[], T]) -> T:
        """What an action gives that raises an error `explained`; the first failure is said, and the end of failing."""
        started, failures = time.monotonic(), 0
        while True:
            try:
                done = action()
            except CheckpointError as error:
                left = started + self.patience - time.monotonic()
                if not (isinstance(error.__cause__, OSError) and passing(error.__cause__)) or left <= 0:
                    raise
                failures += 1
                if failures == 1:
                    self.say(f"storage: {error}; trying again for {left:.0f} s")
                time.sleep(min(left, PAUSE * min(failures, 10)))
            else:
                if failures:
                    waited = time.monotonic() - started
                    self.say(f"storage: works again after {failures} failures in {waited:.0f} s")
                return done


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn an error of the file system into a CheckpointError that says what the user can do about it."""
    try:
        yield
    except OSError as error:
        reason, advice = error.strerror or str(error), remedy(error) or "look at that disk"
        raise CheckpointError(f"{root}: cannot write checkpoints: {reason}; {advice}") from error


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str
