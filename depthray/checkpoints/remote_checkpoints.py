"""Checkpoints of remote runs: which there are, the best of them, and copies in the cache of this machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from depthray.checkpoints import manifest, select
from depthray.checkpoints.select import FOLDER, TEMPORARY, CheckpointName
from depthray.config import recipe as recipes
from depthray.errors import CheckpointError, UsageError
from depthray.storage import environment
from depthray.storage.file_lock import lock
from depthray.storage.remote import RemoteFolder


def complete_checkpoints(run: RemoteFolder) -> list[str]:
    """The names of the complete checkpoints of a remote run, by step."""
    files = (run / FOLDER).files()
    # The manifest is uploaded last, so where there is one there is all of the checkpoint.
    names = {name.partition("/")[0] for name in files if name.endswith(f"/{manifest.NAME}") and name.count("/") == 1}
    return select.sort_names([*names])


def download_checkpoint(run: RemoteFolder, working: Path, name: str) -> Path:
    """Download a checkpoint into a run's folder; it appears there verified and complete, or CheckpointError."""
    source, target = run / FOLDER / name, working / FOLDER / name
    target.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is verified: whatever has the name of a checkpoint counts as complete.
    temporary = target.with_name(f"{TEMPORARY}{uuid4().hex}")
    temporary.mkdir()
    try:
        for file in source.files():
            (temporary / file).parent.mkdir(exist_ok=True)
            source.download(file, temporary / file)
        manifest.verify(temporary)
        shutil.rmtree(target, ignore_errors=True)  # a damaged copy, which is why it is downloaded again
        os.rename(temporary, target)
    except CheckpointError as error:
        # The user knows the remote checkpoint, not the temporary copy.
        raise CheckpointError(str(error).replace(str(temporary), source.url)) from None
    except FileNotFoundError:
        raise CheckpointError(f"{source.url}: was removed while it was downloaded; use another checkpoint") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def is_good(path: Path) -> bool:
    """Whether all files of a checkpoint are as they were written."""
    try:
        manifest.verify(path)
    except CheckpointError:
        return False
    return True


@contextmanager
def locked(working: Path) -> Iterator[None]:
    """Keep the other processes of this machine from downloading the same."""
    working.parent.mkdir(parents=True, exist_ok=True)
    # A file next to the folder, as the folder itself may be moved away under the lock.
    with lock(working.with_name(f"{working.name}.lock")):
        yield


def cached_checkpoint(url: str) -> Path:
    """The checkpoint meant by a remote path (itself, or of a run its best), in the cache of this machine."""
    run, name = _split(url)
    if name is None:
        name, _ = best_checkpoint(url)
    copy = environment.cached_copy("fetched", run.url)
    with locked(copy):
        path = copy / FOLDER / name
        return path if _is_copy(path, run / FOLDER / name) else download_checkpoint(run, copy, name)


def best_checkpoint(url: str) -> tuple[str, dict[str, float]]:
    """Name and scores of the best checkpoint of a remote run, or of the last if none is scored.

    Of each checkpoint only its metrics are downloaded.
    """
    run = RemoteFolder(url)
    names = complete_checkpoints(run)
    if not names:
        raise CheckpointError(f"{run.url}: neither a checkpoint nor a run folder with one in {FOLDER}/")
    try:
        monitor = _monitor(run, names[-1])
        # Not from the progress file: only checkpoints that still exist are candidates.
        metrics = {name: _metrics(run / FOLDER / name) for name in names}
    except FileNotFoundError:  # pruned since it was listed
        raise CheckpointError(f"{run.url}: its checkpoints change; try again in a moment") from None
    best = select.best([(name, metrics[name].get(monitor)) for name in names], monitor) or names[-1]
    return best, metrics[best]


def _metrics(checkpoint: RemoteFolder) -> dict[str, Any]:
    """The metrics of a remote checkpoint, none where they are damaged: it then ranks as one without scores."""
    try:
        metrics = json.loads(checkpoint.read(manifest.METRICS))
    except ValueError:
        return {}
    return metrics if isinstance(metrics, dict) else {}


def _monitor(run: RemoteFolder, name: str) -> str:
    """The metric by which a run ranks its checkpoints."""
    # A folder of its own for each call: two commands may read the same run at once.
    copy = environment.cached_copy("fetched", run.url) / f"{TEMPORARY}{uuid4().hex}"
    copy.mkdir(parents=True)
    try:
        (run / FOLDER / name).download(manifest.RECIPE, copy / manifest.RECIPE)
        return recipes.read(str(copy / manifest.RECIPE), trust=False).eval.monitor
    except UsageError as error:
        raise CheckpointError(f"{run.url}: {name}: its recipe cannot be read: {error}") from None
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _split(url: str) -> tuple[RemoteFolder, str | None]:
    """The run that a remote path is in, and the name of the checkpoint if the path means one."""
    parent, _, name = url.rpartition("/")
    if not CheckpointName.parse(name):
        return RemoteFolder(url.removesuffix(f"/{FOLDER}")), None
    if parent.endswith(f"/{FOLDER}"):
        return RemoteFolder(parent.removesuffix(f"/{FOLDER}")), name
    raise CheckpointError(f"{url}: a checkpoint is in the folder {FOLDER} of a run; give RUN or RUN/{FOLDER}/{name}")


def _is_copy(path: Path, source: RemoteFolder) -> bool:
    """Whether a local checkpoint is good and the same as the remote one."""
    # By its manifest, not by its name: another run at the same address has checkpoints of the same names.
    try:
        return is_good(path) and source.read(manifest.NAME) == (path / manifest.NAME).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{source.url}: no such checkpoint") from None
