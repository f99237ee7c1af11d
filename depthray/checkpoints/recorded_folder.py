"""Folders all of whose files are recorded, with size and SHA-256, in one of them, which is written last.

A checkpoint is one, an export another. The file of records ends with a digest of itself.
"""

from __future__ import annotations

import json
import stat
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from depthray.errors import CheckpointError
from depthray.storage.local import FileRecord
from depthray.storage.os_errors import translate_os_errors

MAX_BYTES = 1 << 20  # of a file of records; more is not read into memory, and fails as damaged


@dataclass(frozen=True)
class RecordedFolder:
    """What kind of folder it is: its noun in messages, its file of records, and what to do about a damaged one."""

    noun: str
    manifest: str
    advice: str

    def read_manifest(self, path: Path) -> bytes:
        """The bytes of the file of records; CheckpointError where there is none."""
        if not path.is_dir():
            raise CheckpointError(f"{path}: no such {self.noun} folder")
        where = path / self.manifest
        if not where.is_file():
            raise CheckpointError(f"{path}: has no {self.manifest}, so it is not a complete {self.noun}; {self.advice}")
        with self._translate_read_errors(where), where.open("rb") as file:
            return file.read(MAX_BYTES)

    def check_listing(self, path: Path, files: dict[str, FileRecord]) -> None:
        """CheckpointError unless the folder holds the recorded files and no others; contents are not read."""
        with self._translate_read_errors(path):
            names = {entry.name for entry in path.iterdir()} - {self.manifest}  # its own digest is inside it
        if missing := sorted(set(files) - names):
            raise CheckpointError(f"{path}: {missing[0]} is missing; {self.advice}")
        if extra := sorted(names - set(files)):
            raise CheckpointError(f"{path}: {extra[0]} does not belong to this {self.noun}; remove it if you know it")

    def check_size(self, path: Path, expected: FileRecord) -> None:
        """CheckpointError unless the file is a regular one of the recorded size; its bytes are not read."""
        with self._translate_read_errors(path):
            status = path.lstat()  # not stat: the target of a link may change after it was checked
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path}: not a regular file; {self.advice}")
        if status.st_size != expected.size:
            raise CheckpointError(f"{path}: {status.st_size} bytes instead of {expected.size}; {self.advice}")

    def check_file(self, path: Path, expected: FileRecord) -> None:
        """CheckpointError unless the file is as it was written."""
        self.check_size(path, expected)
        with self._translate_read_errors(path), path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        self._check_digest(path, digest, expected)

    def read_file(self, path: Path, expected: FileRecord) -> bytes:
        """The bytes of a file, the very ones that were checked."""
        self.check_size(path, expected)
        with self._translate_read_errors(path):
            data = path.read_bytes()
        self._check_digest(path, sha256(data).hexdigest(), expected)
        return data

    def _check_digest(self, path: Path, digest: str, expected: FileRecord) -> None:
        if digest != expected.sha256:
            raise CheckpointError(f"{path}: damaged (its SHA-256 is not the one recorded); {self.advice}")

    def _translate_read_errors(self, path: Path) -> AbstractContextManager[None]:
        return translate_os_errors(path, to=CheckpointError, doing="be read", advice=self.advice)


def seal(body: dict[str, Any]) -> bytes:
    """The bytes of a file of records, the last of which is a digest of the rest."""
    digest = sha256(_serialize(body)).hexdigest()
    return _serialize({**body, "digest": digest})


def _serialize(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, indent=1, sort_keys=True).encode() + b"\n"
