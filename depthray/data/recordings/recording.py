"""A recording, and what all kinds of recorded files have in common: each process opens a file by itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

from depthray.data.recordings.messages import Message, RecordedMessage, Topic
from depthray.errors import DataError, UsageError

INSTALL = "pip install 'depthray[recordings]'"
Handle = TypeVar("Handle")


class Recording(Protocol):
    """Messages in the order of the recorder's clock, and any of them by its position. Picklable; for many threads."""

    path: Path
    name: str  # of it among the recordings of a data set
    scene: str  # of its frames; "" = its name
    split: str  # as in `Frame`

    @property
    def depth_encoding(self) -> str:
        """The encoding that the recording states for depth; "" = by the encoding of its images."""

    def topics(self) -> list[Topic]:
        """All topics; a DataError where the file is not a recording that can be read."""

    def entries(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        """The messages of some topics, images perhaps without pixels.

        Ends where the file is damaged, after which `damage` says so.
        """

    def message(self, topic: str, position: Any) -> Message:
        """The message at a position that `entries` gave; a DataError where it can no longer be read."""

    def close(self) -> None:
        """Close the file until it is read again."""

    @property
    def damage(self) -> str:
        """Why `entries` ended early; "" where it did not."""

    def sizes(self, topics: Collection[str]) -> list[tuple[str, int]]:
        """The names of the files with some topics, and their sizes in bytes."""


class RecordedFile(Generic[Handle]):
    """A recording in a file. A kind of file says how it is opened and closed."""

    depth_encoding = scene = split = ""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name, self.damage = path, name, ""
        self._forget()

    def _forget(self) -> None:
        self._handle: Handle | None = None
        self._lock, self._process = threading.RLock(), os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_handle", "_lock", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @contextmanager
    def opened(self) -> Iterator[Handle]:
        """The open file, for one thread at a time."""
        self._after_fork()
        with self._lock:
            if self._handle is None:
                self._handle = self.open_handle()
            yield self._handle

    def close(self) -> None:
        """Close the file until it is read again."""
        self._after_fork()
        with self._lock:
            if self._handle is not None:
                self.close_handle(self._handle)
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def files(self, topics: Collection[str]) -> list[Path]:
        """The files that have some topics."""
        if self.path.is_file():
            return [self.path]
        return sorted(each for each in self.path.rglob("*") if each.is_file())

    def sizes(self, topics: Collection[str]) -> list[tuple[str, int]]:
        """The names of the files with some topics, and their sizes in bytes; a DataError where one is missing."""
        try:
            return [(file.name, file.stat().st_size) for file in self.files(topics)]
        except OSError as error:
            raise DataError(f"{error.filename}: {error.strerror}") from None

    def _after_fork(self) -> None:
        """In a forked process: let go of the file, as two processes would move one position in it, and of the lock."""
        if self._process != os.getpid():
            handle = self._handle
            self._forget()
            if handle is not None:
                self.close_handle(handle)

    def open_handle(self) -> Handle:
        """Open the file; a DataError where that is not possible."""
        raise NotImplementedError

    def close_handle(self, handle: Handle) -> None:
        """Close the file."""
        raise NotImplementedError


def import_library(name: str, *, what: str) -> ModuleType:
    """A library of the extra `recordings`; a UsageError that says how to install it."""
    try:
        return import_module(name)
    except ImportError:
        raise UsageError(f"{what} needs {name.partition('.')[0]}, which is not installed: {INSTALL}") from None


def find_files(root: Path, suffix: str) -> list[Path]:
    """The files with a suffix in a folder and below, in the order of their names, or the one that the root is."""
    if root.is_file():
        return [root] if root.suffix == suffix else []
    return sorted(path for path in root.rglob(f"*{suffix}") if path.is_file())


def has_files(root: Path, suffix: str) -> bool:
    """Whether the root is a file with the suffix, or has one at most two levels down."""
    if root.is_file():
        return root.suffix == suffix
    return any(any(root.glob(f"{level}*{suffix}")) for level in ("", "*/", "*/*/"))


def name_in(root: Path, path: Path) -> str:
    """The name of a recording among those below the root: its path, of a file without suffix."""
    name = path.resolve().name if path == root else path.relative_to(root).as_posix()
    return name.removesuffix(path.suffix) if path.is_file() else name
