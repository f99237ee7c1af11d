"""Files that are on the disk when they are said to be, digested while they are written."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from depthray.errors import CheckpointError
from depthray.manifest import File

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


def write_file(path: Path, fill: Callable[[Hashed], object]) -> File:
    """Create a file, let `fill` write it, and see it to the disk."""
    with path.open("xb") as file:
        hashed = Hashed(file)
        fill(hashed)
        if hashed.error:
            raise hashed.error
        file.flush()
        os.fsync(file.fileno())
    return File(hashed.size, hashed.digest.hexdigest())


def replace(path: Path, data: bytes) -> None:
    """Write a file that readers see in whole, old or new."""
    temporary = path.with_name(f"{UNFINISHED}{uuid4().hex}")
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sync_folder(path: Path) -> None:
    """See the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn an error of the file system into a CheckpointError that says what the user can do about it."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "look at that disk")
        reason = error.strerror or str(error)
        raise CheckpointError(f"{root}: cannot write checkpoints: {reason}; {remedy}") from error
