"""Folders on an object store or another file system of pyarrow: `RemoteFolder("s3://bucket/runs/x")`.

Endpoint and credentials are those of the store's own tools: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ~/.aws, machine roles.
pyarrow is imported with the first call that needs it; a library without remote folders runs without it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from uuid import uuid4

from depthray.errors import UsageError
from depthray.storage.local import UNFINISHED
from depthray.storage.pyarrow import PIECE, explain, is_permanent, list_folder, open_store, put
from depthray.storage.pyarrow import StorageError as StorageError
from depthray.storage.retry import Retry

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

T = TypeVar("T")
# Path() makes one slash of two, and most arguments of the command line are Paths: `s3:/bucket` means `s3://bucket`.
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]+):/+([^/].*)", re.DOTALL)


def is_remote(where: str | Path) -> bool:
    """Whether a path means a folder of a store, `SCHEME://...`, not one of this machine's file system."""
    return _REMOTE.fullmatch(str(where)) is not None


def normalize_address(where: str | Path) -> str:
    """A remote path with two slashes after its scheme (three for `file`) and none at the end.

    Raises UsageError for a path with credentials or options in it: it is written into logs and records.
    """
    match = _REMOTE.fullmatch(str(where))
    if not match:
        raise UsageError(f"{where}: not the address of a remote folder, such as s3://BUCKET/runs/x")
    scheme, rest = match[1], match[2].rstrip("/")
    if {"@", "?"} & {*rest}:
        raise UsageError(f"{scheme}://...: no credentials or options in an address; set AWS_ENDPOINT_URL and the like")
    return f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"


class RemoteFolder:
    """A remote folder. A call that fails is tried again for `retry_seconds`, then it raises StorageError."""

    def __init__(self, url: str | Path, *, retry_seconds: float = 120.0) -> None:
        self.url, self.retry_seconds = normalize_address(url), retry_seconds
        self._opened: tuple[int, FileSystem, str] | None = None

    def __truediv__(self, name: str) -> RemoteFolder:
        """The folder of that name in this one."""
        return RemoteFolder(f"{self.url}/{name}", retry_seconds=self.retry_seconds)

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the store for itself, with its own threads and connections.
        return {"url": self.url, "retry_seconds": self.retry_seconds, "_opened": None}

    def names(self) -> list[str]:
        """The names of files and folders directly in it, those of folders with a slash at the end."""

        def list_names(store: FileSystem, root: str) -> list[str]:
            return sorted(
                info.base_name + ("" if info.is_file else "/") for info in list_folder(store, root, deep=False)
            )

        return self._try("list", "", list_names)

    def files(self) -> dict[str, int]:
        """All files in it and its folders, relative path -> bytes."""

        def list_files(store: FileSystem, root: str) -> dict[str, int]:
            infos = (info for info in list_folder(store, root, deep=True) if info.is_file)
            return {os.path.relpath(info.path, root): info.size for info in infos}

        return self._try("list", "", list_files)

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""

        def look(store: FileSystem, path: str) -> int | None:
            info = store.get_file_info(path)
            return info.size if info.is_file else None

        return self._try("look at", name, look)

    def read(self, name: str, *, start: int = 0) -> bytes:
        """The bytes of a file from `start` on. FileNotFoundError where there is none."""

        def get(store: FileSystem, path: str) -> bytes:
            with store.open_input_file(path) as file:
                left = file.size() - start
                return cast(bytes, file.read_at(left, start)) if left > 0 else b""

        return self._try("read", name, get)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, of which readers see all, old or new."""
        self._try("write", name, lambda store, path: put(store, path, io.BytesIO(data), len(data)))

    def upload(self, name: str, path: Path) -> None:
        """Copy a local file to it, a piece at a time."""

        def send(store: FileSystem, target: str) -> None:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                put(store, target, cast(BinaryIO, _Prefix(file, size)), size)  # a log may grow meanwhile

        self._try("write", name, send, local=path)

    def download(self, name: str, path: Path) -> None:
        """Copy a file of it to a local one, which appears complete or not at all."""
        temporary = path.with_name(f"{UNFINISHED}{uuid4().hex}")

        def save(store: FileSystem, source_path: str) -> None:
            try:
                with store.open_input_stream(source_path) as source, temporary.open("wb") as file:
                    copyfileobj(source, file, PIECE)
                    file.flush()
                    os.fsync(file.fileno())  # before the rename: a name must not be on the disk without its bytes
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

        self._try("read", name, save, local=temporary)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all below; nothing where there is none."""

        def drop(store: FileSystem, path: str) -> None:
            info = store.get_file_info(path)
            # Neither: it does not exist, which is no error here.
            if info.is_file:
                store.delete_file(path)
            elif info.type.name == "Directory":
                store.delete_dir(path)

        try:
            self._try("remove", name, drop)
        except FileNotFoundError:
            return

    def open(self, name: str) -> BinaryIO:
        """A seekable file of it for reading by range requests. FileNotFoundError where there is none."""
        # 1 MiB at a time, as the time of a small request is mostly its round trip.
        return cast(BinaryIO, io.BufferedReader(_RangeReader(self, name), 1 << 20))

    def _try(self, verb: str, name: str, action: Callable[[FileSystem, str], T], *, local: Path | None = None) -> T:
        """The result of an action, tried again; that a file is missing is for the caller to handle at once."""

        def attempt() -> T:
            store, root = self._store()
            return action(store, f"{root}/{name}" if name else root)

        def is_transient(error: BaseException) -> bool:
            # A full disk of this machine is no outage of the store.
            return isinstance(error, OSError) and not is_permanent(error) and not _is_of(error, local)

        with _translate_store_errors(f"{self.url}/{name}" if name else self.url, verb):
            return Retry(self.retry_seconds, is_transient=is_transient).run(attempt)

    def _store(self) -> tuple[FileSystem, str]:
        """The file system and the path in it; made again in a forked process, which has none of its threads."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *open_store(self.url))
        return self._opened[1:]


class _RangeReader(io.RawIOBase):
    """Reads of a remote file at any position, each tried again by its folder."""

    def __init__(self, folder: RemoteFolder, name: str) -> None:
        self.folder, self.name, self.position = folder, name, 0
        size = folder.size(name)
        if size is None:
            raise FileNotFoundError(f"{folder.url}/{name}: no such file")
        self.bytes = size
        self.file: Any = None  # opened by the first read
        self.process = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + (0, self.position, self.bytes)[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self.bytes - self.position))
        data = self.folder._try("read", self.name, lambda store, path: self._read(store, path, count))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def _read(self, store: FileSystem, path: str, count: int) -> bytes:
        try:
            if self.file is None or self.process != os.getpid():  # a forked process opens it for itself
                self.file, self.process = store.open_input_file(path), os.getpid()
            return cast(bytes, self.file.read_at(count, self.position))
        except OSError:
            self.file = None  # the next try opens it again
            raise


class _Prefix:
    """The first bytes of a file that may grow."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, most: int) -> bytes:
        data = self.file.read(min(most, self.left))
        self.left -= len(data)
        return data


def _is_of(error: OSError, path: Path | None) -> bool:
    """Whether an error is one of the local file, which it names, and not of the store."""
    return path is not None and str(error.filename) == str(path)


@contextmanager
def _translate_store_errors(where: str, verb: str) -> Iterator[None]:
    """Turn an error of a store into a StorageError of one line; FileNotFoundError stays as it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.filename:  # a local file
            raise
        raise StorageError(f"{where}: cannot {verb} it: {explain(error)}") from error
