"""Remote runs and checkpoints, downloaded into the cache of this machine and verified there.

What a run writes is in its working folder, CACHE/runs/NAME-DIGEST; copies for reading are in CACHE/fetched/...
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from depthray.checkpoints import manifest, select
from depthray.checkpoints.select import TEMPORARY, CheckpointName
from depthray.errors import CheckpointError, UsageError
from depthray.runs.layout import CHECKPOINTS, IDENTITY, PROGRESS, RECIPE, STOP
from depthray.storage import environment, remote
from depthray.storage.remote import RemoteFolder
from depthray.training import preflight


def working_folder(url: str | Path) -> Path:
    """Where a process of this machine writes a remote run."""
    return environment.cached_copy("runs", remote.normalize_address(url))


def recipe_file(url: str | Path) -> Path:
    """The recipe of a remote run as a local file. Raises UsageError where there is no run."""
    url = remote.normalize_address(url)
    path = environment.cached_copy("fetched", url) / RECIPE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Shorter than the retries of a run: here somebody waits for the command.
        RemoteFolder(url, retry_seconds=30).download(RECIPE, path)
    except FileNotFoundError:
        raise UsageError(f"--resume: {url} holds no run (no {RECIPE} there)") from None
    return path


def complete_checkpoints(run: RemoteFolder) -> list[str]:
    """The names of the complete checkpoints of a remote run, by step."""
    files = (run / CHECKPOINTS).files()
    # The manifest is uploaded last, so where there is one there is all of the checkpoint.
    names = {name.partition("/")[0] for name in files if name.endswith(f"/{manifest.NAME}") and name.count("/") == 1}
    return select.sort_names([*names])


def download_checkpoint(run: RemoteFolder, working: Path, name: str) -> Path:
    """Download a checkpoint into a run's folder; it appears there verified and complete, or CheckpointError."""
    source, target = run / CHECKPOINTS / name, working / CHECKPOINTS / name
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


def prepare_to_resume(run: RemoteFolder, working: Path, log: Callable[[str], None]) -> None:
    """Make the working folder ready to resume a remote run: progress, and the newest good checkpoint of both folders.

    A damaged checkpoint is passed over and reported; CheckpointError where there are some and none is good.
    """
    with _locked(working):
        _match_identity(run, working, log)
        (working / CHECKPOINTS).mkdir(exist_ok=True)  # the run may have saved nothing yet
        _download_newest(run, working, log)
        _download_longer_progress(run, working)
        # `prepare` has removed a STOP of the attempt before, but on the store only if another machine ran it.
        if run.size(STOP) is None:
            (working / STOP).unlink(missing_ok=True)


def _match_identity(run: RemoteFolder, working: Path, log: Callable[[str], None]) -> None:
    """Move a working folder away that belongs to an earlier run of the same address."""
    try:
        identity = run.read(IDENTITY)
    except FileNotFoundError:
        raise CheckpointError(f"{run.url}: holds no run any more; somebody removed it") from None
    mine = working / IDENTITY
    if working.exists() and (mine.read_bytes() if mine.exists() else b"") != identity:
        # Not removed: it may hold checkpoints that were never uploaded.
        old = working.with_name(f"{working.name}-before-{time.strftime('%Y%m%d-%H%M%S')}")
        os.rename(working, old)
        log(f"{working} held another run of the same name; it is now {old.name}, to be removed if it is not wanted")
    working.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(identity)  # a folder without it counts as one of another run


def _download_newest(run: RemoteFolder, working: Path, log: Callable[[str], None]) -> None:
    remote_names = complete_checkpoints(run)
    local_names = [path.name for path in select.committed(working / CHECKPOINTS) if _is_good(path)]
    newest_here = max(map(_position, local_names), default=None)
    for name in reversed(remote_names):
        if newest_here and newest_here >= _position(name):
            return  # a run that was killed may be ahead of what was uploaded
        try:
            download_checkpoint(run, working, name)
        except CheckpointError as error:
            log(f"{error}; going back to the checkpoint before")
        else:
            return
    if remote_names and not local_names:
        count = len(remote_names)
        raise CheckpointError(f"{run.url}: none of {count} checkpoints is good; give another --out to begin again")


def _position(name: str) -> CheckpointName:
    return CheckpointName.parse(name) or CheckpointName(0, 0)


def _is_good(path: Path) -> bool:
    try:
        manifest.verify(path)
    except CheckpointError:
        return False
    return True


def _download_longer_progress(run: RemoteFolder, working: Path) -> None:
    """Continue the longer of both progress files; the one of this machine may be ahead of what was uploaded."""
    mine, size = working / PROGRESS, run.size(PROGRESS)
    if size and size > (mine.stat().st_size if mine.exists() else 0):
        run.download(PROGRESS, mine)


def ensure_checkpoint(run: RemoteFolder, working: Path, name: str) -> Path:
    """A checkpoint that another process of the run chose, in this machine's working folder."""
    with _locked(working):
        path = working / CHECKPOINTS / name
        return path if _is_good(path) else download_checkpoint(run, working, name)


@contextmanager
def _locked(working: Path) -> Iterator[None]:
    """Keep the other processes of this machine from downloading the same."""
    working.parent.mkdir(parents=True, exist_ok=True)
    # A file next to the folder, as the folder itself may be moved away under the lock.
    with working.with_name(f"{working.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached_checkpoint(url: str) -> Path:
    """The checkpoint meant by a remote path (itself, or of a run its best), in the cache of this machine."""
    run, name = _split(url)
    if name is None:
        name, _ = best_checkpoint(url)
    copy = environment.cached_copy("fetched", run.url)
    with _locked(copy):
        path = copy / CHECKPOINTS / name
        return path if _is_copy(path, run / CHECKPOINTS / name) else download_checkpoint(run, copy, name)


def best_checkpoint(url: str) -> tuple[str, dict[str, float]]:
    """Name and scores of the best checkpoint of a remote run, or of the last if none is scored.

    Of each checkpoint only its metrics are downloaded.
    """
    run = RemoteFolder(url)
    names = complete_checkpoints(run)
    if not names:
        raise CheckpointError(f"{run.url}: neither a checkpoint nor a run folder with one in {CHECKPOINTS}/")
    try:
        monitor = _monitor(run, names[-1])
        # Not from the progress file: only checkpoints that still exist are candidates.
        metrics = {name: _metrics(run / CHECKPOINTS / name) for name in names}
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
        (run / CHECKPOINTS / name).download(manifest.RECIPE, copy / manifest.RECIPE)
        return preflight.load(str(copy / manifest.RECIPE), training=False).eval.monitor
    except UsageError as error:
        raise CheckpointError(f"{run.url}: {name}: its recipe cannot be read: {error}") from None
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _split(url: str) -> tuple[RemoteFolder, str | None]:
    """The run that a remote path is in, and the name of the checkpoint if the path means one."""
    parent, _, name = url.rpartition("/")
    if not CheckpointName.parse(name):
        return RemoteFolder(url.removesuffix(f"/{CHECKPOINTS}")), None
    if parent.endswith(f"/{CHECKPOINTS}"):
        return RemoteFolder(parent.removesuffix(f"/{CHECKPOINTS}")), name
    raise CheckpointError(
        f"{url}: a checkpoint is in the folder {CHECKPOINTS} of a run; give RUN or RUN/{CHECKPOINTS}/{name}"
    )


def _is_copy(path: Path, source: RemoteFolder) -> bool:
    """Whether a local checkpoint is good and the same as the remote one."""
    # By its manifest, not by its name: another run at the same address has checkpoints of the same names.
    try:
        return _is_good(path) and source.read(manifest.NAME) == (path / manifest.NAME).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{source.url}: no such checkpoint") from None
