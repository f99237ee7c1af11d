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
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import IO, cast
from uuid import uuid4

import torch

import depthray
from depthray.checkpoints import manifest
from depthray.checkpoints.load import Contents
from depthray.checkpoints.manifest import METRICS, RECIPE, STATE, WEIGHTS, Manifest
from depthray.checkpoints.select import TEMPORARY, checkpoints_in, place_of, ranked
from depthray.checkpoints.serialize import spell_weights
from depthray.checkpoints.snapshot import Snapshot
from depthray.config import recipe
from depthray.storage.local import Trials, explained, sync_folder, write_file


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


def _spell_metrics(metrics: dict[str, float]) -> bytes:
    """Metrics as strict JSON, which knows no NaN or infinity: these become null."""
    tree = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
    return json.dumps(tree, indent=1).encode() + b"\n"


def _free_name(root: Path, contents: Contents) -> Path:
    """A new name, after all others of this step: what stands there is removed only when this one is safe on disk."""
    name = f"epoch-{contents.epoch:04d}-step-{contents.step:08d}"
    times = [
        place_of(path)[2] for path in checkpoints_in(root) if place_of(path)[:2] == (contents.step, contents.epoch)
    ]
    return root / (f"{name}-{max(times) + 1}" if times else name)


def _prune(root: Path, *, keep_best: int, monitor: str) -> None:
    """Remove all but the best and the last, and of a step that was saved again all but the last save."""
    paths = checkpoints_in(root)
    newest = {place_of(path)[:2]: path for path in paths}
    keep = {paths[-1], *ranked(list(newest.values()), monitor)[:keep_best]}
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
