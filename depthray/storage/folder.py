"""A folder of this machine or of an object store, with the same few calls."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from depthray.storage import local, remote


class Tree(Protocol):
    """A folder on a store or here."""

    @property
    def url(self) -> str: ...
    def names(self) -> list[str]: ...
    def files(self) -> dict[str, int]: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...


class Here:
    """A folder of this machine with the calls of storage.Folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def names(self) -> list[str]:
        """The names of files and folders directly in it, those of folders with a slash at the end."""
        return sorted(path.name + "/" * path.is_dir() for path in self.path.glob("*"))

    def files(self) -> dict[str, int]:
        """All files in it and its folders, relative path -> bytes."""
        found = {}
        for path in (Path(root, name) for root, _, names in os.walk(self.path) for name in names):
            with suppress(FileNotFoundError):  # a run under way renames and removes checkpoints
                found[path.relative_to(self.path).as_posix()] = path.lstat().st_size
        return found

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file that readers see in whole."""
        local.replace(self.path / name, data)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all below; nothing where there is none."""
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def tree(where: str | Path) -> Tree:
    """The folder of a path of this machine, or of an address such as s3://BUCKET/runs."""
    return remote.Folder(where) if remote.is_remote(where) else Here(Path(os.path.realpath(where)))
