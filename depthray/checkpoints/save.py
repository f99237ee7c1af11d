"""A checkpoint is a folder, complete and verified or invisible.

    RUN/checkpoints/epoch-0003-step-00000120/
        model.safetensors   weights to predict with
        state.pt            what else training needs to resume; loads with weights_only=True
        recipe.yaml         metrics.json         manifest.json (sizes, SHA-256; written last)
        model.json          what the network was trained on, and the intervals of its scores
        code-*.py           files of one's own code that the recipe names

It is written under a temporary name, synced to disk, and renamed. `root` is the folder `checkpoints` throughout.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, cast
from uuid import uuid4

import torch

from depthray.checkpoints import manifest, model_facts
from depthray.checkpoints.load import CheckpointContents
from depthray.checkpoints.manifest import METRICS, RECIPE, STATE, WEIGHTS, Manifest
from depthray.checkpoints.select import TEMPORARY, CheckpointName, checkpoints_in, rank, scores
from depthray.checkpoints.serialize import serialize_weights
from depthray.checkpoints.snapshot import Snapshot
from depthray.config import own_code, recipe
from depthray.errors import CheckpointError
from depthray.storage.local import sync_folder, write_file
from depthray.storage.os_errors import is_transient, translate_os_errors
from depthray.storage.retry import Retry
from depthray.storage.strict_json import to_json
from depthray.version import __version__


class CheckpointWriter:
    """Saves checkpoints of a run in the background and keeps the best and the last.

    `save` returns when the tensors are copied; an error after that is raised by the next `save` or `wait`. A disk or
    file server that fails is tried again for `retry_seconds`, while training continues.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep_best: int,
        monitor: str,
        retry_seconds: float = 0.0,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.root, self.keep_best, self.monitor = root, keep_best, monitor
        self._retry = Retry(retry_seconds, is_transient=is_transient, log=log)
        self._snapshot = Snapshot()
        # One thread, so that checkpoints appear in the order in which they were saved.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="depthray-checkpoint")
        self._pending: Future[Path | None] | None = None
        _prepare(root)

    def reserve(self, contents: CheckpointContents) -> None:
        """Allocate memory for contents of this shape in the background, where a first `save` spends most time."""
        self.wait()
        self._pending = self._thread.submit(self._reserve, contents)

    def save(self, contents: CheckpointContents) -> None:
        """Copy the live tensors and write them while training continues."""
        self.wait()  # its tensors are in the one memory that this copy overwrites
        copied = _copy(contents, self._snapshot)
        self._pending = self._thread.submit(self._write, copied)

    def wait(self) -> Path | None:
        """Wait until all is written; the path of the checkpoint written since the last call."""
        pending, self._pending = self._pending, None
        return pending.result() if pending else None

    def is_among_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether a checkpoint of these metrics would be one of the best that are kept, once all before it is written.

        The last is kept too, until the next.
        """
        self.wait()
        others: list[tuple[Path | None, float | None]] = [*scores(checkpoints_in(self.root), self.monitor)]
        return None in rank([*others, (None, metrics.get(self.monitor))], self.monitor)[: self.keep_best]

    def hurry(self) -> None:
        """Wait no longer for a disk that fails."""
        self._retry.hurry()

    def _reserve(self, contents: CheckpointContents) -> None:
        _copy(contents, self._snapshot)  # of tensors that are changing; never read, and overwritten by the first save
        self._snapshot.finish()

    def _write(self, contents: CheckpointContents) -> Path:
        self._snapshot.finish()
        path = self._retry.run(lambda: _commit(self.root, contents))
        # A retry of its own: pruning that fails must not write the checkpoint again.
        self._retry.run(lambda: _prune(self.root, keep_best=self.keep_best, monitor=self.monitor))
        return path


def write(root: Path, contents: CheckpointContents) -> Path:
    """Write one checkpoint and return its path; only what a killed writer left behind is removed."""
    _prepare(root)
    snapshot = Snapshot()
    copied = _copy(contents, snapshot)
    snapshot.finish()
    return _commit(root, copied)


def _copy(contents: CheckpointContents, snapshot: Snapshot) -> CheckpointContents:
    copied = snapshot.take({"weights": contents.weights, "state": contents.state})
    metrics = {key: float(value) for key, value in contents.metrics.items()}
    return replace(contents, weights=copied["weights"], state=copied["state"], metrics=metrics)


def _commit(root: Path, contents: CheckpointContents) -> Path:
    """Write a checkpoint whose tensors are this thread's own; it appears complete or not at all."""
    temporary = root / f"{TEMPORARY}{uuid4().hex}"
    with translate_os_errors(root, to=CheckpointError, doing="write checkpoints"):
        try:
            temporary.mkdir()  # in the same folder, as a rename is atomic only within a file system
            _write_files(temporary, contents)
            sync_folder(temporary)
            target = _free_name(root, contents)
            os.rename(temporary, target)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(root)  # the new name must be on the disk before older checkpoints are removed
    return target


def _write_files(folder: Path, contents: CheckpointContents) -> None:
    # The state goes straight to the file, as it is the larger part; safetensors needs all weights for its header.
    files = {
        WEIGHTS: write_file(folder / WEIGHTS, lambda file: file.write(serialize_weights(contents.weights))),
        STATE: write_file(folder / STATE, lambda file: torch.save(contents.state, cast(IO[bytes], file))),
        RECIPE: write_file(folder / RECIPE, lambda file: file.write(recipe.dump(contents.recipe).encode())),
        METRICS: write_file(folder / METRICS, lambda file: file.write(_serialize_metrics(contents.metrics))),
    }
    if contents.facts is not None:
        facts = model_facts.render(contents.facts)
        files[model_facts.NAME] = write_file(folder / model_facts.NAME, partial(_write_bytes, facts))
    code = own_code.records(contents.recipe)
    for each, content in code:
        if each.file and each.file not in files:  # an architecture and a loss may be in one file
            files[each.file] = write_file(folder / each.file, partial(_write_bytes, content))
    versions = {name: version(name) for name in ("torch", "numpy")}
    versions |= {"depthray": __version__, "python": platform.python_version(), **contents.arithmetic}
    record = Manifest(
        epoch=contents.epoch,
        step=contents.step,
        fingerprint=contents.fingerprint,
        versions=versions,
        files=files,
        origin=contents.origin,
        code=tuple(each for each, _ in code),
        calibration=contents.calibration,
        temperature=contents.temperature,
    )
    write_file(folder / manifest.NAME, lambda file: file.write(manifest.render(record)))


def _serialize_metrics(metrics: dict[str, float]) -> bytes:
    return to_json(metrics, indent=1).encode() + b"\n"


def _free_name(root: Path, contents: CheckpointContents) -> Path:
    """A new name, after all others of this step: an older save is removed only when this one is safe on disk."""
    name = CheckpointName(contents.step, contents.epoch)
    saves = [other.save for path in checkpoints_in(root) if (other := _name(path))[:2] == name[:2]]
    return root / str(name._replace(save=max(saves, default=0) + 1))


def _prune(root: Path, *, keep_best: int, monitor: str) -> None:
    """Remove all but the best and the last, and of a step that was saved again all but the last save."""
    paths = checkpoints_in(root)
    # Paths are in order, so the last save of a step replaces the earlier ones.
    newest = {_name(path)[:2]: path for path in paths}
    keep = {paths[-1], *rank(scores(list(newest.values()), monitor), monitor)[:keep_best]}
    with translate_os_errors(root, to=CheckpointError, doing="write checkpoints"):
        for path in paths:
            if path not in keep:
                doomed = root / f"{TEMPORARY}{uuid4().hex}"
                os.rename(path, doomed)  # so that a half-deleted one is never seen
                shutil.rmtree(doomed)


def _name(path: Path) -> CheckpointName:
    name = CheckpointName.parse(path.name)
    assert name is not None, path  # it is one of `checkpoints_in`
    return name


def _prepare(root: Path) -> None:
    """Make the folder and clear what killed writers left in it."""
    with translate_os_errors(root, to=CheckpointError, doing="write checkpoints"):
        root.mkdir(parents=True, exist_ok=True)
        for stale in root.glob(f"{TEMPORARY}*"):
            shutil.rmtree(stale)


def _write_bytes(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
