"""The manifest of a checkpoint: what its files must be, byte for byte, and where in the run it was taken.

It is written last, so a folder without one is no checkpoint. It ends with a digest of itself and is valid only exactly
as `render` writes it, so that a changed byte shows wherever it is.
"""

from __future__ import annotations

import json
import stat
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from depthray.checkpoints import origin
from depthray.checkpoints.origin import Origin
from depthray.errors import CheckpointError
from depthray.storage.local import FileRecord
from depthray.storage.os_errors import translate_os_errors

NAME = "manifest.json"
FORMAT = 1
FORMAT_WITH_ORIGIN = 2  # of the network's first weights; a checkpoint without one keeps the first format
WEIGHTS, STATE, RECIPE, METRICS = FILES = ("model.safetensors", "state.pt", "recipe.yaml", "metrics.json")
MAX_BYTES = 1 << 20  # of a manifest; more is not read into memory, and fails as damaged


@dataclass(frozen=True)
class Manifest:
    """When in its run a checkpoint was taken, by which versions, and the files it consists of."""

    epoch: int
    step: int
    fingerprint: str
    versions: dict[str, str]
    files: dict[str, FileRecord]
    origin: Origin | None = None  # of the weights that the run started from; None: random ones


def render(manifest: Manifest) -> bytes:
    """The bytes of manifest.json, the last of which is a digest of the rest."""
    body = {"format": FORMAT_WITH_ORIGIN if manifest.origin else FORMAT, **asdict(manifest)}
    if manifest.origin is None:
        del body["origin"]
    digest = sha256(_serialize(body)).hexdigest()
    return _serialize({**body, "digest": digest})


def parse(data: bytes, *, where: Path) -> Manifest:
    """The manifest whose bytes these are; CheckpointError if they are not exactly what `render` writes."""
    try:
        tree = json.loads(data)
        if tree["format"] not in (FORMAT, FORMAT_WITH_ORIGIN):
            known = f"{FORMAT} or {FORMAT_WITH_ORIGIN}"
            raise CheckpointError(f"{where}: format {tree['format']!r} is not the format {known} this version reads")
        manifest = _build(tree)
        intact = render(manifest) == data  # so that a changed byte shows even where JSON ignores it, as in spaces
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(f"{where}: damaged (its digest does not match); use another checkpoint")
    return manifest


def read(path: Path) -> Manifest:
    """The manifest of a checkpoint folder that holds the files it names and no others; contents are not read."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint folder")
    where = path / NAME
    if not where.is_file():
        raise CheckpointError(f"{path}: has no {NAME}, so it is not a complete checkpoint; use another")
    with _translate_read_errors(where), where.open("rb") as file:
        manifest = parse(file.read(MAX_BYTES), where=where)
        _check_listing(path, manifest)
    return manifest


def verify(path: Path) -> Manifest:
    """The manifest of a checkpoint all of whose bytes are as they were written; else CheckpointError."""
    manifest = read(path)
    for name, expected in manifest.files.items():
        check_file(path / name, expected)
    return manifest


def check_file(path: Path, expected: FileRecord) -> None:
    """CheckpointError unless the file is as it was written."""
    with _translate_read_errors(path):
        _check_size(path, expected)
        with path.open("rb") as file:
            _check_digest(path, file_digest(file, "sha256").hexdigest(), expected)


def read_file(path: Path, expected: FileRecord) -> bytes:
    """The bytes of a file, the very ones that were checked."""
    with _translate_read_errors(path):
        _check_size(path, expected)
        data = path.read_bytes()
    _check_digest(path, sha256(data).hexdigest(), expected)
    return data


def check_size(path: Path, expected: FileRecord) -> None:
    """CheckpointError unless the file is a regular one of the recorded size; its bytes are not read."""
    with _translate_read_errors(path):
        _check_size(path, expected)


def _serialize(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, indent=1, sort_keys=True).encode() + b"\n"


def _build(tree: dict[str, Any]) -> Manifest:
    # Files beyond FILES are allowed: a later version may add one.
    files = {name: FileRecord(**record) for name, record in tree["files"].items()}
    if not set(FILES) <= set(files):
        raise KeyError("files")
    return Manifest(
        epoch=tree["epoch"],
        step=tree["step"],
        fingerprint=tree["fingerprint"],
        versions=tree["versions"],
        files=files,
        origin=origin.from_json(tree.get("origin")),
    )


def _check_listing(path: Path, manifest: Manifest) -> None:
    names = {entry.name for entry in path.iterdir()} - {NAME}  # its own digest is inside it
    if missing := sorted(set(manifest.files) - names):
        raise CheckpointError(f"{path}: {missing[0]} is missing; use another checkpoint")
    if extra := sorted(names - set(manifest.files)):
        raise CheckpointError(f"{path}: {extra[0]} does not belong to this checkpoint; remove it if you know it")


def _check_size(path: Path, expected: FileRecord) -> None:
    status = path.lstat()  # not stat: the target of a link may change after it was checked
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: not a regular file; use another checkpoint")
    if status.st_size != expected.size:
        raise CheckpointError(f"{path}: {status.st_size} bytes instead of {expected.size}; use another checkpoint")


def _check_digest(path: Path, digest: str, expected: FileRecord) -> None:
    if digest != expected.sha256:
        raise CheckpointError(f"{path}: damaged (its SHA-256 is not the one recorded); use another checkpoint")


def _translate_read_errors(path: Path) -> AbstractContextManager[None]:
    return translate_os_errors(path, to=CheckpointError, doing="be read", advice="use another checkpoint")
