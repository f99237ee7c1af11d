"""Models by name on disk, each in versions; which one is served is one small file, replaced at once.

    STORE/default                      name of the model that answers without one
    STORE/NAME/current.json            {"current": VERSION, "previous": VERSION or ""}
    STORE/NAME/versions/VERSION/       a checkpoint, copied whole; VERSION begins the SHA-256 of its manifest.json
    STORE/NAME/golden/VERSION.npz      what it said of the golden images when it was promoted

Replicas look at `current.json` again and again; nothing else tells them. On several hosts the folder is a shared one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from depthray.checkpoints import load, manifest
from depthray.errors import CheckpointError, UsageError, did_you_mean
from depthray.storage import local
from serve.backend import ModelCard
from serve.settings import NAME

DIGITS = 12
QUIET = 600.0  # seconds after which no replica still loads or holds a version that is not served any more
_NAME, _VERSION = re.compile(NAME), re.compile(rf"[0-9a-f]{{{DIGITS}}}")

_SCORES = ("abs_rel", "rmse", "mae", "silog", "delta1", "delta2", "delta3", "iou", "dice", "boundary_f1")


@dataclass(frozen=True)
class Pointer:
    """Which version of a model is served, and which was before."""

    current: str
    previous: str = ""

    @property
    def versions(self) -> tuple[str, ...]:
        """Those that answer, newest first."""
        return (self.current, self.previous) if self.previous else (self.current,)


class Store:
    """A folder of models. Methods that change it wait for each other, also between processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The models there are, the default first."""
        found = sorted(path.parent.name for path in self.root.glob("*/current.json"))
        default = self._default()
        return sorted(found, key=lambda name: (name != default, name))

    def pointer(self, name: str) -> Pointer:
        """Which versions of a model are served. CheckpointError where there is no such model."""
        where = self._folder(name) / "current.json"
        try:
            return _parse(where.read_bytes())
        except FileNotFoundError:
            raise CheckpointError(f"{self.root}: no model '{name}'{did_you_mean(name, self.names())}") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise CheckpointError(f"{where}: damaged; promote a checkpoint to '{name}' again") from None

    def path(self, name: str, version: str) -> Path:
        """The checkpoint folder of a version."""
        if not _VERSION.fullmatch(version):
            raise CheckpointError(f"'{version[:80]}' is no version; one is {DIGITS} hex digits")
        return self._folder(name) / "versions" / version

    def verified(self, name: str, version: str) -> Path:
        """The checkpoint folder of a version, which is what its name says; loading it verifies the rest."""
        path = self.path(name, version)
        manifest.read(path)
        if _version(path) != version:
            raise CheckpointError(f"{path}: altered since it was put there; promote the checkpoint again")
        return path

    def versions(self, name: str) -> list[str]:
        """All versions kept of a model, the newest first."""
        paths = (self._folder(name) / "versions").glob("[!.]*")
        return [path.name for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)]

    def card(self, name: str, version: str = "") -> ModelCard:
        """What a client must know of a version, by default the current one."""

        pointer = self.pointer(name)
        version = version or pointer.current
        path = self.path(name, version)
        recipe = load.recipe_of(path)
        data = recipe.data
        return ModelCard(
            name,
            version,
            architecture=recipe.model.name,
            inputs=tuple(data.inputs),
            targets=tuple(data.targets),
            size=(data.size[0], data.size[1]),
            fit=data.fit,
            min_depth=data.min_depth,
            max_depth=data.max_depth,
            default=name == self._default(),
            versions=pointer.versions,
            metrics=_metrics(path),
            about=recipe.about,
        )

    def add(self, name: str, checkpoint: Path) -> str:
        """Copy a checkpoint in, verified before and after; returns its version. Nothing is served by that yet."""
        manifest.verify(checkpoint)
        version = _version(checkpoint)
        place = self.path(name, version)
        with self._changing(name):
            if _intact(place, version):
                os.utime(place)
                return version
            copy = place.with_name(f"{local.UNFINISHED}{uuid4().hex}")
            try:
                shutil.copytree(checkpoint, copy)
                manifest.verify(copy)
                shutil.rmtree(place, ignore_errors=True)  # a damaged one of the same name
                os.rename(copy, place)
            finally:
                shutil.rmtree(copy, ignore_errors=True)
        return version

    def remove(self, name: str, version: str) -> None:
        """Delete a version that is not served; one that is stays."""
        with self._changing(name):
            if version not in self._served(name):
                shutil.rmtree(self.path(name, version), ignore_errors=True)
                self._golden(name, version).unlink(missing_ok=True)

    def prune(self, name: str, keep: int) -> list[str]:
        """Delete all but the versions that are served, the `keep` newest, and those served or added just now.

        A replica may be loading one of the last kind, or still hold it. Returns the versions deleted.
        """
        with self._changing(name):
            served = self._served(name)
            if not served:
                return []  # none yet, or unknown which
            old = [version for version in self.versions(name)[keep:] if version not in served]
            gone = [version for version in old if time.time() - self.path(name, version).stat().st_mtime > QUIET]
            for left in (self._folder(name) / "versions").glob(f"{local.UNFINISHED}*"):  # by one that was killed
                shutil.rmtree(left, ignore_errors=True)
            for version in gone:
                away = self.path(name, version).with_name(f"{local.UNFINISHED}{uuid4().hex}")
                os.rename(self.path(name, version), away)  # nobody finds half of it
                shutil.rmtree(away, ignore_errors=True)
                self._golden(name, version).unlink(missing_ok=True)
            return gone

    def keep_golden(self, name: str, version: str, answers: Sequence[dict[str, Any]]) -> None:
        """Remember what a version says of the golden images."""
        arrays = {f"{place}-{key}": values for place, maps in enumerate(answers) for key, values in maps.items()}
        place = self._golden(name, version)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f"{local.UNFINISHED}{uuid4().hex}.npz")
        np.savez(temporary, **arrays)
        os.replace(temporary, place)

    def golden(self, name: str, version: str) -> list[dict[str, Any]]:
        """What a version said of the golden images when it was promoted."""
        try:
            with np.load(self._golden(name, version), allow_pickle=False) as arrays:
                answers: dict[int, dict[str, Any]] = {}
                for key in arrays.files:
                    place, _, target = key.partition("-")
                    answers.setdefault(int(place), {})[target] = arrays[key]
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(f"{name}@{version}: its golden answers cannot be read ({error})") from None
        return [answers[place] for place in sorted(answers)]

    def point(self, name: str, version: str) -> Pointer:
        """Serve a version from now on; the one before is kept for `rollback`."""
        with self._changing(name):
            served = self._served(name)
            if version in served[:1]:
                return self.pointer(name)
            return self._write(name, Pointer(version, served[0] if served else ""))

    def rollback(self, name: str) -> Pointer:
        """Serve the version before; called twice, the later one again."""
        with self._changing(name):
            pointer = self.pointer(name)
            if not pointer.previous:
                raise UsageError(f"'{name}' has no version before {pointer.current} to go back to")
            return self._write(name, Pointer(pointer.previous, pointer.current))

    def make_default(self, name: str) -> None:
        """Let a model answer where no name is given."""
        self.pointer(name)
        local.replace(self.root / "default", f"{name}\n".encode())

    def _default(self) -> str:
        try:
            return (self.root / "default").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _served(self, name: str) -> tuple[str, ...]:
        try:
            return self.pointer(name).versions
        except CheckpointError:  # none yet, or damaged, which pointing anew mends
            return ()

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UsageError(f"'{name[:80]}' is no name of a model; use a-z, 0-9, dot, dash, underline, at most 64")
        return self.root / name

    def _golden(self, name: str, version: str) -> Path:
        return self._folder(name) / "golden" / f"{version}.npz"

    def _write(self, name: str, pointer: Pointer) -> Pointer:
        for version in {*self._served(name), *pointer.versions}:  # served just now, see prune
            with suppress(OSError):
                os.utime(self.path(name, version))
        local.replace(self._folder(name) / "current.json", json.dumps(asdict(pointer)).encode() + b"\n")
        if not self._default():
            self.make_default(name)
        return pointer

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        folder = self._folder(name) / "versions"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (self.root / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise CheckpointError(f"{self.root}: cannot be written: {error.strerror}; choose another --store") from None


def _version(path: Path) -> str:
    return sha256((path / manifest.NAME).read_bytes()).hexdigest()[:DIGITS]


def _intact(path: Path, version: str) -> bool:
    try:
        manifest.verify(path)
    except CheckpointError:
        return False
    return _version(path) == version


def _parse(data: bytes) -> Pointer:
    pointer = Pointer(**json.loads(data))
    if not all(_VERSION.fullmatch(version) for version in pointer.versions):
        raise ValueError("version")
    return pointer


def _metrics(path: Path) -> dict[str, float]:
    try:
        tree = json.loads((path / manifest.METRICS).read_bytes())
        return {key: float(value) for key, value in tree.items() if value is not None and key in _SCORES}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
