"""Atomic writes to local files, synced to disk, with their SHA-256."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

UNFINISHED = ".writing-"  # begins the names of files that are not complete yet


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str


class Hashed(io.RawIOBase):
    """A file that is hashed while it is written. After an error, kept in `error`, nothing more is written."""

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
        return len(data)  # after an error too: torch.save takes fewer bytes for an error of its own


def write_file(path: Path, fill: Callable[[Hashed], object]) -> FileRecord:
    """Create a file, let `fill` write it, and fsync it."""
    with path.open("xb") as file:  # x: an existing file would mean two writers of one checkpoint
        hashed = Hashed(file)
        fill(hashed)
        if hashed.error:
            raise hashed.error
        file.flush()
        os.fsync(file.fileno())  # else a manifest could be on the disk before the files it describes
    return FileRecord(hashed.size, hashed.digest.hexdigest())


def replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file, of which readers see all, old or new; a power failure may undo it unless it is `durable`."""
    # In the same folder, as a rename is atomic only within a file system.
    temporary = path.with_name(f"{UNFINISHED}{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Fsync a directory: the names in it are then on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
