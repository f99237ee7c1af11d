"""The model registry: a folder of models by name, each in versions, with one small file that names the current one.

    STORE/default                      name of the model for requests that name none
    STORE/NAME/current.json            {"current": VERSION, "previous": VERSION or ""}
    STORE/NAME/versions/VERSION/       a copy of a checkpoint or export; VERSION: first digits of the SHA-256 of its
                                       manifest.json or model.json
    STORE/NAME/golden/VERSION.npz      its predictions for the golden images when it was promoted
    STORE/NAME/facts/VERSION.json      what its run says of it: data, scores, limits (model.json of a checkpoint)
    STORE/NAME/exports/VERSION/        exports of it, see serve/registry/exports.py

Replicas poll `current.json` and are not notified otherwise. With several hosts the folder is on shared storage.
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

from depthray.cards import collected, limits_text
from depthray.checkpoints import manifest, model_facts
from depthray.checkpoints.model_facts import ModelFacts
from depthray.config import own_code
from depthray.errors import CheckpointError, UsageError, did_you_mean
from depthray.runtimes import export_folder
from depthray.runtimes.open import EAGER, read_recipe
from depthray.storage import local
from depthray.storage.os_errors import translate_os_errors
from serve.backend import ModelCard
from serve.registry import exports, golden
from serve.settings import NAME

DIGITS = 12  # 48 bits: no two versions of one model will ever share them
UNUSED_AFTER = 600.0  # seconds after which no replica still loads or uses a version that is not served any more
_NAME, _VERSION = re.compile(NAME), re.compile(rf"[0-9a-f]{{{DIGITS}}}")

_SCORES = ("abs_rel", "rmse", "mae", "silog", "delta1", "delta2", "delta3", "iou", "dice", "boundary_f1")


@dataclass(frozen=True)
class Pointer:
    """The current version of a model, and the one before."""

    current: str
    previous: str = ""

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that are served, newest first."""
        return (self.current, self.previous) if self.previous else (self.current,)


class Store:
    """A folder of models. Methods that change it hold a lock, between processes too."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The models there are, the default first."""
        # A folder without that file is a model whose first promotion failed or still runs.
        names = sorted(path.parent.name for path in self.root.glob("*/current.json"))
        default = self._default()
        return sorted(names, key=lambda name: (name != default, name))

    def pointer(self, name: str) -> Pointer:
        """The served versions of a model. CheckpointError if there is no such model."""
        where = self._folder(name) / "current.json"
        try:
            return _parse(where.read_bytes())
        except FileNotFoundError:
            raise CheckpointError(f"{self.root}: no model '{name}'{did_you_mean(name, self.names())}") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise CheckpointError(f"{where}: damaged; promote a checkpoint to '{name}' again") from None

    def path(self, name: str, version: str) -> Path:
        """The checkpoint folder of a version."""
        # Versions come from clients, too, and become a part of a path.
        if not _VERSION.fullmatch(version):
            raise CheckpointError(f"'{version[:80]}' is no version; one is {DIGITS} hex digits")
        return self._folder(name) / "versions" / version

    def verified(self, name: str, version: str) -> Path:
        """The checkpoint folder of a version, whose manifest is verified here and the other files on loading."""
        path = self.path(name, version)
        if export_folder.is_export(path):
            export_folder.read(path)
        else:
            manifest.read(path)
        # The manifest may be valid, but that of another checkpoint.
        if _version(path) != version:
            raise CheckpointError(f"{path}: altered since it was stored; promote the checkpoint again")
        return path

    def versions(self, name: str) -> list[str]:
        """All stored versions of a model, the newest first."""
        # By the time of use, which `add` and `_write` renew.
        paths = (self._folder(name) / "versions").glob("[!.]*")
        return [path.name for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)]

    def card(self, name: str, version: str = "") -> ModelCard:
        """The card of a version, by default of the current one."""
        pointer = self.pointer(name)
        version = version or pointer.current
        path = self.path(name, version)
        recipe = read_recipe(path)
        data = recipe.data
        facts = self.facts(name, version)
        return ModelCard(
            name,
            version,
            architecture=own_code.short_name(recipe.model.name),
            inputs=tuple(data.inputs),
            targets=tuple(data.targets),
            confidence=(recipe.model.uncertainty != "none" or _has_spread(path)) and "depth" in data.targets,
            size=(data.size[0], data.size[1]),
            fit=data.fit,
            canonical_focal=data.canonical_focal,
            canonical=data.canonical,
            min_depth=data.min_depth,
            max_depth=data.max_depth,
            default=name == self._default(),
            versions=pointer.versions,
            metrics=_metrics(path),
            about=recipe.about,
            origin=_origin(path),
            runtime=next(iter(self.runtimes(name, version))),
            facts=facts,
            limits=tuple(limits_text.lines(facts, recipe)) if facts else (),
        )

    def facts(self, name: str, version: str) -> ModelFacts | None:
        """What is known of a version: what its run said when it was promoted, else what it says of itself."""
        where = self._facts(name, version)
        try:
            return model_facts.parse(where.read_bytes(), where=where)
        except (OSError, CheckpointError):
            return collected.facts_of(self.path(name, version), reports=None)

    def keep_facts(self, name: str, version: str, facts: ModelFacts) -> None:
        """Store what the run of a version says of it."""
        path = self._facts(name, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        local.replace(path, model_facts.render(facts))

    def runtimes(self, name: str, version: str) -> dict[str, Path]:
        """What can compute a version, the fastest first: an export's target, or "eager", with the folder of each."""
        path = self.path(name, version)
        if export_folder.is_export(path):
            return {export_folder.read(path).target: path}
        measured = exports.speeds(self.exports(name, version)) or {EAGER: 0.0}
        return {each: path if each == EAGER else self.exports(name, version) / each for each in measured}

    def exports(self, name: str, version: str) -> Path:
        """The folder of a version's exports, which there may be none of."""
        return self.path(name, version).parents[1] / "exports" / version

    def add(self, name: str, checkpoint: Path) -> str:
        """Copy a checkpoint or an export into the store, verified before and after; its version, not served yet."""
        _verify(checkpoint)
        version = _version(checkpoint)
        path = self.path(name, version)
        with self._lock(name):
            if _is_intact(path, version):
                os.utime(path)  # prune keeps what was added just now
                return version
            copy = path.with_name(f"{local.UNFINISHED}{uuid4().hex}")
            try:
                shutil.copytree(checkpoint, copy)
                _verify(copy)
                shutil.rmtree(path, ignore_errors=True)  # a damaged copy of this version
                os.rename(copy, path)
            finally:
                shutil.rmtree(copy, ignore_errors=True)
        return version

    def remove(self, name: str, version: str) -> None:
        """Delete a version, unless it is served."""
        with self._lock(name):
            if version not in self._served(name):
                shutil.rmtree(self.path(name, version), ignore_errors=True)
                self._forget(name, version)

    def prune(self, name: str, keep: int) -> list[str]:
        """Delete all but the versions that are served, the `keep` newest, and those served or added just now.

        A replica may be loading one of the last kind, or still use it. Returns the deleted versions.
        """
        with self._lock(name):
            served = self._served(name)
            if not served:
                return []  # none yet, or the pointer is damaged: then nothing is known to be unused
            old = [version for version in self.versions(name)[keep:] if version not in served]
            unused = [version for version in old if self._age(name, version) > UNUSED_AFTER]
            for left in (self._folder(name) / "versions").glob(f"{local.UNFINISHED}*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            for version in unused:
                doomed = self.path(name, version).with_name(f"{local.UNFINISHED}{uuid4().hex}")
                os.rename(self.path(name, version), doomed)  # at once, so that nobody reads half of a version
                shutil.rmtree(doomed, ignore_errors=True)
                self._forget(name, version)
            return unused

    def keep_golden(self, name: str, version: str, answers: Sequence[golden.Maps]) -> None:
        """Store the predictions of a version for the golden images."""
        path = self._golden(name, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        golden.write(path, answers)

    def golden(self, name: str, version: str, runtime: str = EAGER) -> list[golden.Maps]:
        """The predictions of a version for the golden images when it was promoted, by one of its `runtimes`."""
        own = exports.golden_of(self.exports(name, version), runtime)
        try:
            return golden.read(own if own.is_file() else self._golden(name, version))
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(f"{name}@{version}: its golden answers cannot be read ({error})") from None

    def point(self, name: str, version: str) -> Pointer:
        """Make a version the current one; the one before stays available, and for `rollback`."""
        with self._lock(name):
            served = self._served(name)
            if version in served[:1]:  # promoted again: it must not become its own predecessor
                return self.pointer(name)
            return self._write(name, Pointer(version, served[0] if served else ""))

    def rollback(self, name: str) -> Pointer:
        """Swap the current version and the one before."""
        self.pointer(name)  # raises if there is no such model, of which the lock would make a folder
        with self._lock(name):
            pointer = self.pointer(name)
            if not pointer.previous:
                raise UsageError(f"'{name}' has no version before {pointer.current} to go back to")
            # Swapped, so that a second rollback undoes the first.
            return self._write(name, Pointer(pointer.previous, pointer.current))

    def make_default(self, name: str) -> None:
        """Make a model the one for requests that name none."""
        self.pointer(name)  # raises if there is no such model
        local.replace(self.root / "default", f"{name}\n".encode())

    def _default(self) -> str:
        try:
            return (self.root / "default").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _served(self, name: str) -> tuple[str, ...]:
        try:
            return self.pointer(name).versions
        except CheckpointError:  # none yet, or damaged: the next `point` writes it anew
            return ()

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UsageError(f"'{name[:80]}' is not a model's name; use a-z, 0-9, dot, dash, underline, at most 64")
        return self.root / name

    def _golden(self, name: str, version: str) -> Path:
        return self._folder(name) / "golden" / f"{version}.npz"

    def _facts(self, name: str, version: str) -> Path:
        return self._folder(name) / "facts" / f"{version}.json"

    def _forget(self, name: str, version: str) -> None:
        """Delete what is stored of a version besides itself."""
        self._golden(name, version).unlink(missing_ok=True)
        self._facts(name, version).unlink(missing_ok=True)
        shutil.rmtree(self.exports(name, version), ignore_errors=True)

    def _age(self, name: str, version: str) -> float:
        """Seconds since a version was last served or added."""
        return time.time() - self.path(name, version).stat().st_mtime

    def _write(self, name: str, pointer: Pointer) -> Pointer:
        for version in {*self._served(name), *pointer.versions}:  # so that prune keeps what was served just now
            with suppress(OSError):
                os.utime(self.path(name, version))
        local.replace(self._folder(name) / "current.json", json.dumps(asdict(pointer)).encode() + b"\n")
        if not self._default():
            self.make_default(name)
        return pointer

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        folder = self._folder(name) / "versions"
        advice = "choose another --store"
        with translate_os_errors(self.root, to=CheckpointError, doing="be written", advice=advice):
            folder.mkdir(parents=True, exist_ok=True)
            # One lock for all models, in a file that is never replaced: flock is of the file, not of its name.
            with (self.root / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield


def _version(path: Path) -> str:
    record = export_folder.NAME if export_folder.is_export(path) else manifest.NAME
    return sha256((path / record).read_bytes()).hexdigest()[:DIGITS]


def _verify(path: Path) -> None:
    if export_folder.is_export(path):
        export_folder.verify(path)
    else:
        manifest.verify(path)


def _is_intact(path: Path, version: str) -> bool:
    try:
        _verify(path)
    except CheckpointError:
        return False
    return _version(path) == version


def _parse(data: bytes) -> Pointer:
    pointer = Pointer(**json.loads(data))
    if not all(_VERSION.fullmatch(version) for version in pointer.versions):  # it becomes a path
        raise ValueError("version")
    return pointer


def _has_spread(path: Path) -> bool:
    """Whether it is an export with the confidence of a spread of predictions."""
    return export_folder.is_export(path) and export_folder.read(path).spread is not None


def _origin(path: Path) -> dict[str, Any]:
    """What clients may know of the weights that a checkpoint's run started from; no path of this machine."""
    origin = (export_folder.read(path) if export_folder.is_export(path) else manifest.read(path)).origin
    return {} if origin is None else origin.published()


def _metrics(path: Path) -> dict[str, float]:
    try:
        tree = json.loads((path / manifest.METRICS).read_bytes())
        return {key: float(value) for key, value in tree.items() if value is not None and key in _SCORES}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
