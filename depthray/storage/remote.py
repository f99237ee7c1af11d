"""Folders on an object store or another file system of pyarrow: `Folder("s3://bucket/runs/x")`.

Endpoint and credentials are those of the store's own tools: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ~/.aws, machine roles.
pyarrow is imported with the first call that needs it; a library without remote folders runs without it.
"""

from __future__ import annotations

import io
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from uuid import uuid4

from depthray.errors import UsageError
from depthray.storage.local import UNFINISHED
from depthray.storage.pyarrow import PIECE, lasting, listed, open_store, put, reason
from depthray.storage.pyarrow import StorageError as StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

T = TypeVar("T")
# Path() makes one slash of two, and most words of the command line read Paths: `s3:/bucket` is meant as `s3://bucket`.
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]+):/+([^/].*)", re.DOTALL)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0


def patience() -> float:
    """Seconds for which a run waits for storage that fails before it ends: DEPTHRAY_STORAGE_PATIENCE, else 600."""
    given = os.environ.get("DEPTHRAY_STORAGE_PATIENCE", "600")
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise UsageError(f"DEPTHRAY_STORAGE_PATIENCE={given}: give a number of seconds, such as 600")
    return seconds


def cache() -> Path:
    """Where copies of what lies remote are kept on this machine: DEPTHRAY_CACHE, else ~/.cache/depthray."""
    return Path(os.environ.get("DEPTHRAY_CACHE") or Path.home() / ".cache" / "depthray").absolute()


def place(kind: str, url: str) -> Path:
    """The folder of the cache for a remote folder, of its name and a digest of its address."""
    url = address(url)
    return cache() / kind / f"{url.rsplit('/', 1)[-1]}-{sha256(url.encode()).hexdigest()[:12]}"


def is_remote(where: str | Path) -> bool:
    """Whether a path means a folder of a store, `SCHEME://...`, not one of this machine's file system."""
    return _REMOTE.fullmatch(str(where)) is not None


def address(where: str | Path) -> str:
    """The one spelling of a remote path: two slashes (three for `file`), none at the end.

    Raises UsageError for a path with credentials or options in it: it is written into logs and records.
    """
    match = _REMOTE.fullmatch(str(where))
    if not match:
        raise UsageError(f"{where}: not the address of a remote folder, such as s3://BUCKET/runs/x")
    scheme, rest = match[1], match[2].rstrip("/")
    if {"@", "?"} & {*rest}:
        raise UsageError(f"{scheme}://...: no credentials or options in an address; set AWS_ENDPOINT_URL and the like")
    return f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"


class Folder:
    """A remote folder. Each call is tried again until it works or `patience` seconds are over, then StorageError."""

    def __init__(self, url: str | Path, *, patience: float = 120.0) -> None:
        self.url, self.patience = address(url), patience
        self._opened: tuple[int, FileSystem, str] | None = None

    def __truediv__(self, name: str) -> Folder:
        """The folder of that name in this one."""
        return Folder(f"{self.url}/{name}", patience=self.patience)

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "patience": self.patience, "_opened": None}

    def names(self) -> list[str]:
        """The names of files and folders directly in it, those of folders with a slash at the end."""

        def find(store: FileSystem, root: str) -> list[str]:
            return sorted(info.base_name + ("" if info.is_file else "/") for info in listed(store, root, deep=False))

        return self._try("list", "", find)

    def files(self) -> dict[str, int]:
        """All files in it and its folders, relative path -> bytes."""

        def find(store: FileSystem, root: str) -> dict[str, int]:
            infos = (info for info in listed(store, root, deep=True) if info.is_file)
            return {os.path.relpath(info.path, root): info.size for info in infos}

        return self._try("list", "", find)

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""

        def ask(store: FileSystem, path: str) -> int | None:
            info = store.get_file_info(path)
            return info.size if info.is_file else None

        return self._try("look at", name, ask)

    def read(self, name: str, *, start: int = 0) -> bytes:
        """The bytes of a file from `start` on. FileNotFoundError where there is none."""

        def get(store: FileSystem, path: str) -> bytes:
            with store.open_input_file(path) as file:
                left = file.size() - start
                return cast(bytes, file.read_at(left, start)) if left > 0 else b""

        return self._try("read", name, get)

    def write(self, name: str, data: bytes) -> None:
        """Write a file that readers see in whole, old or new."""
        self._try("write", name, lambda store, path: put(store, path, io.BytesIO(data), len(data)))

    def upload(self, name: str, path: Path) -> None:
        """Copy a local file to it, a piece at a time."""

        def send(store: FileSystem, place: str) -> None:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                put(store, place, cast(BinaryIO, _Upto(file, size)), size)  # a log may grow meanwhile

        self._try("write", name, send, local=path)

    def download(self, name: str, path: Path) -> None:
        """Copy a file of it to a local one, which appears whole or not at all."""
        temporary = path.with_name(f"{UNFINISHED}{uuid4().hex}")

        def fetch(store: FileSystem, place: str) -> None:
            try:
                with store.open_input_stream(place) as source, temporary.open("wb") as file:
                    copyfileobj(source, file, PIECE)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

        self._try("read", name, fetch, local=temporary)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all below; nothing where there is none."""

        def drop(store: FileSystem, path: str) -> None:
            info = store.get_file_info(path)
            if info.is_file:
                store.delete_file(path)
            elif info.type.name == "Directory":
                store.delete_dir(path)

        try:
            self._try("remove", name, drop)
        except FileNotFoundError:
            return

    def open(self, name: str) -> BinaryIO:
        """A file of it for reading here and there, by range requests. FileNotFoundError where there is none."""
        return cast(BinaryIO, io.BufferedReader(_Ranges(self, name), 1 << 20))

    def _try(self, verb: str, name: str, action: Callable[[FileSystem, str], T], *, local: Path | None = None) -> T:
        """What an action gives, tried until the patience is over; a missing file is the caller's matter at once."""
        where = f"{self.url}/{name}" if name else self.url
        with _told(where, verb):
            for pause in _pauses(self.patience):
                try:
                    store, root = self._store()
                    return action(store, f"{root}/{name}" if name else root)
                except OSError as error:
                    if pause is None or lasting(error) or _is_of(error, local):
                        raise
                time.sleep(pause)
        raise AssertionError("the last pause is None")

    def _store(self) -> tuple[FileSystem, str]:
        """The file system and the path in it; made again in a forked process, which has none of its threads."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *open_store(self.url))
        return self._opened[1:]


class _Ranges(io.RawIOBase):
    """Reads of a remote file at any place, each tried again by its folder."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder, self.name, self.place = folder, name, 0
        size = folder.size(name)
        if size is None:
            raise FileNotFoundError(f"{folder.url}/{name}: no such file")
        self.bytes = size
        self.file: Any = None
        self.process = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.bytes)[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self.bytes - self.place))
        data = self.folder._try("read", self.name, lambda store, path: self._read(store, path, wanted))
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)

    def _read(self, store: FileSystem, path: str, wanted: int) -> bytes:
        try:
            if self.file is None or self.process != os.getpid():  # a forked process opens it for itself
                self.file, self.process = store.open_input_file(path), os.getpid()
            return cast(bytes, self.file.read_at(wanted, self.place))
        except OSError:
            self.file = None  # the next try opens it again
            raise


class _Upto:
    """The first bytes of a file that may grow."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, most: int) -> bytes:
        data = self.file.read(min(most, self.left))
        self.left -= len(data)
        return data


def _pauses(patience: float) -> Iterator[float | None]:
    """Seconds to wait after each failure, longer each time and never alike; None for the last."""
    end, pause = time.monotonic() + patience, _FIRST_PAUSE
    while (left := end - time.monotonic()) > 0:
        yield min(left, pause * random.uniform(0.5, 1.0))
        pause = min(_LONGEST_PAUSE, 2 * pause)
    yield None


def _is_of(error: OSError, path: Path | None) -> bool:
    """Whether an error is one of the local file, which says its name, and not of the store."""
    return path is not None and str(error.filename) == str(path)


@contextmanager
def _told(where: str, verb: str) -> Iterator[None]:
    """Turn an error of a store into one line; that a file is missing stays as it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.filename:  # a local file
            raise
        raise StorageError(f"{where}: cannot {verb} it: {reason(error)}") from error
