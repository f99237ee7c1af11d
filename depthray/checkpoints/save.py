"""A checkpoint is a folder, complete and verified or invisible.

    RUN/checkpoints/epoch-0003-step-00000120/
        model.safetensors   weights to predict with
        state.pt            what else training needs to go on; loads with weights_only=True
        recipe.yaml         metrics.json         manifest.json (sizes, SHA-256; written last)

It is written under a temporary name, synced to disk, and renamed. `root` is the folder `checkpoints` throughout.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast
from uuid import uuid4

import torch
from torch import Tensor

import depthray
from depthray.checkpoints import manifest
from depthray.checkpoints.manifest import METRICS, RECIPE, STATE, WEIGHTS, Manifest, verify
from depthray.checkpoints.serialize import read_state, read_weights, spell_weights
from depthray.checkpoints.snapshot import Snapshot
from depthray.config import recipe
from depthray.config.sections import Recipe
from depthray.errors import CheckpointError, UsageError
from depthray.evaluation.metrics import badness
from depthray.storage.local import Trials, explained, sync_folder, write_file
from depthray.storage.remote import address, is_remote

__all__ = ["Contents", "Writer", "committed", "latest", "load", "recipe_of", "resolve", "verify", "write"]

FOLDER = "checkpoints"
TEMPORARY = ".tmp-"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)(?:-(\d+))?")  # the last number only where a step was saved again


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds."""

    weights: dict[str, Tensor]
    state: dict[str, Any]  # nested dicts, lists and tuples of tensors and plain values
    recipe: Recipe
    metrics: dict[str, float]
    epoch: int
    step: int
    fingerprint: str


class Writer:
    """Saves checkpoints of a run in the background and keeps the best and the last.

    `save` returns when the tensors are copied; what goes wrong later is raised by the next `save` or `wait`. A disk or
    file server that fails is tried again for `patience` seconds, each time said, while training goes on.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep_best: int,
        monitor: str,
        patience: float = 0.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.root, self.keep_best, self.monitor = root, keep_best, monitor
        self._trials = Trials(patience, say)
        self._snapshot = Snapshot()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="depthray-checkpoint")
        self._pending: Future[Path | None] | None = None
        _prepare(root)

    def reserve(self, contents: Contents) -> None:
        """Find memory for contents of this shape in the background, which would take longest in the first `save`."""
        self.wait()
        self._pending = self._thread.submit(self._reserve, contents)

    def save(self, contents: Contents) -> None:
        """Copy the live tensors and write them while training goes on."""
        self.wait()
        copied = _copy(contents, self._snapshot)
        self._pending = self._thread.submit(self._write, copied)

    def wait(self) -> Path | None:
        """Wait until all is written; the path of what was written since the last call."""
        pending, self._pending = self._pending, None
        return pending.result() if pending else None

    def hurry(self) -> None:
        """Wait no longer for a disk that fails."""
        self._trials.patience = 0.0

    def _reserve(self, contents: Contents) -> None:
        _copy(contents, self._snapshot)  # of tensors that are changing; never read, and overwritten by the first save
        self._snapshot.finish()

    def _write(self, contents: Contents) -> Path:
        self._snapshot.finish()
        path = self._trials.run(lambda: _commit(self.root, contents))
        self._trials.run(lambda: _prune(self.root, keep_best=self.keep_best, monitor=self.monitor))
        return path


def write(root: Path, contents: Contents) -> Path:
    """Write one checkpoint, here and now; nothing is removed but what a killed writer left behind."""
    _prepare(root)
    snapshot = Snapshot()
    copied = _copy(contents, snapshot)
    snapshot.finish()
    return _commit(root, copied)


def committed(root: Path) -> list[Path]:
    """The checkpoints of a run by step; their contents are not looked at."""
    return [path for path in _named(root) if (path / manifest.NAME).is_file()]


def latest(root: Path, say: Callable[[str], None]) -> Path | None:
    """The last good checkpoint, None if there is none yet; each bad one passed over is said.

    Where all are bad, CheckpointError: to begin again at step 0 is for the user to decide.
    """
    paths = _named(root)
    for path in reversed(paths):
        try:
            verify(path)
        except CheckpointError as error:
            say(f"{error}; going back to the checkpoint before")
        else:
            return path
    if paths:
        raise CheckpointError(f"{root}: none of {len(paths)} checkpoints is good; move the folder away to begin again")
    return None


def resolve(path: Path) -> Path:
    """The checkpoint meant by a path: itself, or of a run folder the best, or the last if none is scored.

    One that lies remote is fetched into the cache of this machine.
    """
    if is_remote(path):
        from depthray.runs import download

        return download.fetched(address(path))
    if _NAME.fullmatch(path.name) or (path / manifest.NAME).is_file():
        return path
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    paths = committed(root)
    if not paths:
        raise CheckpointError(f"{path}: neither a checkpoint nor a run folder with one in {FOLDER}/")
    return best(paths, recipe_of(paths[-1]).eval.monitor)


def best(paths: list[Path], monitor: str) -> Path:
    """Of checkpoints by step the best, or the last if none is scored."""
    return (_ranked(paths, monitor) or paths[::-1])[0]


def place(name: str) -> tuple[int, int, int] | None:
    """Step, epoch and how many times that step was saved, from the name of a checkpoint; None for other names."""
    return _place(Path(name)) if _NAME.fullmatch(name) else None


def load(path: Path, *, state: bool = False) -> Contents:
    """The contents of a checkpoint, all of its files verified; the training state only if asked for."""
    record = verify(path) if not state else manifest.read(path)
    data = {
        name: manifest.read_file(path / name, file) for name, file in record.files.items() if state or name != STATE
    }
    return Contents(
        weights=read_weights(data[WEIGHTS], where=path / WEIGHTS),
        state=read_state(data[STATE], where=path / STATE) if state else {},
        recipe=recipe_of(path),
        metrics=_metrics(path),
        epoch=record.epoch,
        step=record.step,
        fingerprint=record.fingerprint,
    )


def _copy(contents: Contents, snapshot: Snapshot) -> Contents:
    copied = snapshot.take({"weights": contents.weights, "state": contents.state})
    metrics = {key: float(value) for key, value in contents.metrics.items()}
    return replace(contents, weights=copied["weights"], state=copied["state"], metrics=metrics)


def _commit(root: Path, contents: Contents) -> Path:
    """Write a checkpoint whose tensors are this thread's own; it appears whole or not at all."""
    temporary = root / f"{TEMPORARY}{uuid4().hex}"
    with explained(root):
        try:
            temporary.mkdir()
            _write_files(temporary, contents)
            sync_folder(temporary)
            target = _free_name(root, contents)
            os.rename(temporary, target)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(root)
    return target


def _write_files(folder: Path, contents: Contents) -> None:
    files = {
        WEIGHTS: write_file(folder / WEIGHTS, lambda file: file.write(spell_weights(contents.weights))),
        STATE: write_file(folder / STATE, lambda file: torch.save(contents.state, cast(IO[bytes], file))),
        RECIPE: write_file(folder / RECIPE, lambda file: file.write(recipe.dump(contents.recipe).encode())),
        METRICS: write_file(folder / METRICS, lambda file: file.write(_spell_metrics(contents.metrics))),
    }
    versions = {name: version(name) for name in ("torch", "numpy")}
    versions |= {"depthray": depthray.__version__, "python": platform.python_version()}
    record = Manifest(contents.epoch, contents.step, contents.fingerprint, versions, files)
    write_file(folder / manifest.NAME, lambda file: file.write(manifest.render(record)))


def recipe_of(path: Path) -> Recipe:
    """The recipe of a checkpoint, its file verified."""
    manifest.check_file(path / RECIPE, manifest.read(path).files[RECIPE])
    try:
        return recipe.load(str(path / RECIPE), training=False)
    except UsageError as error:
        raise CheckpointError(f"{path}: its recipe does not fit this version of depthray: {error}") from None


def _spell_metrics(metrics: dict[str, float]) -> bytes:
    """Metrics as strict JSON, which knows no NaN or infinity: these become null."""
    tree = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
    return json.dumps(tree, indent=1).encode() + b"\n"


def _metrics(path: Path) -> dict[str, float]:
    """The metrics of a checkpoint, NaN where there was no number; none where they cannot be read."""
    try:
        tree = json.loads((path / METRICS).read_bytes())
        return {key: math.nan if value is None else float(value) for key, value in tree.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _named(root: Path) -> list[Path]:
    """The folders with the name of a checkpoint, by step."""
    return sorted((path for path in root.glob("epoch-*") if _NAME.fullmatch(path.name)), key=_place)


def _place(path: Path) -> tuple[int, int, int]:
    """Step, epoch and how many times that step was saved, from the name of a checkpoint."""
    match = _NAME.fullmatch(path.name)
    epoch, step, times = (int(group or 1) for group in match.groups()) if match else (0, 0, 0)
    return step, epoch, times


def _free_name(root: Path, contents: Contents) -> Path:
    """A new name, after all others of this step: what stands there is removed only when this one is safe on disk."""
    name = f"epoch-{contents.epoch:04d}-step-{contents.step:08d}"
    times = [_place(path)[2] for path in _named(root) if _place(path)[:2] == (contents.step, contents.epoch)]
    return root / (f"{name}-{max(times) + 1}" if times else name)


def _ranked(paths: list[Path], monitor: str) -> list[Path]:
    """The scored checkpoints, best score first, of equals the latest first."""
    scored = [(badness(monitor, _metrics(path).get(monitor, math.nan)), path) for path in reversed(paths)]
    return [path for _, path in sorted((pair for pair in scored if math.isfinite(pair[0])), key=lambda pair: pair[0])]


def _prune(root: Path, *, keep_best: int, monitor: str) -> None:
    """Remove all but the best and the last, and of a step that was saved again all but the last save."""
    paths = _named(root)
    newest = {_place(path)[:2]: path for path in paths}
    keep = {paths[-1], *_ranked(list(newest.values()), monitor)[:keep_best]}
    with explained(root):
        for path in paths:
            if path not in keep:
                doomed = root / f"{TEMPORARY}{uuid4().hex}"
                os.rename(path, doomed)  # so that a half-deleted one is never seen
                shutil.rmtree(doomed)


def _prepare(root: Path) -> None:
    """Make the folder and clear what killed writers left in it."""
    with explained(root):
        root.mkdir(parents=True, exist_ok=True)
        for stale in root.glob(f"{TEMPORARY}*"):
            shutil.rmtree(stale)
