"""Folders of this machine or of an object store, with the same calls."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from depthray.storage import local, remote


class LocalFolder:
    """A folder of this machine with the calls of `RemoteFolder`."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def __truediv__(self, name: str) -> LocalFolder:
        """The folder of that name in this one."""
        return LocalFolder(self.path / name)

    def names(self) -> list[str]:
        """The names of files and folders directly in it, those of folders with a slash at the end."""
        return sorted(path.name + "/" * path.is_dir() for path in self.path.glob("*"))

    def files(self) -> dict[str, int]:
        """All files in it and its folders, relative path -> bytes."""
        sizes = {}
        for path in (Path(root, name) for root, _, names in os.walk(self.path) for name in names):
            with suppress(FileNotFoundError):  # a run under way renames and removes checkpoints
                # lstat: a broken link is listed as well.
                sizes[path.relative_to(self.path).as_posix()] = path.lstat().st_size
        return sizes

    def read(self, name: str, *, start: int = 0) -> bytes:
        """The bytes of a file from `start` on. FileNotFoundError where there is none."""
        with (self.path / name).open("rb") as file:
            file.seek(start)
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a file, of which readers see all, old or new."""
        local.replace(self.path / name, data)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all below; nothing where there is none."""
        path = self.path / name
        if path.is_dir() and not path.is_symlink():  # of a link to a folder the link is removed, not what it points to
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


AnyFolder = LocalFolder | remote.RemoteFolder


def open_folder(where: str | Path, *, retry_seconds: float = 120.0) -> AnyFolder:
    """The folder of a path of this machine, or of an address such as s3://BUCKET/runs, whose calls are retried."""
    if remote.is_remote(where):
        return remote.RemoteFolder(where, retry_seconds=retry_seconds)
    return LocalFolder(Path(os.path.realpath(where)))  # `.` and links get the name of the folder itself
