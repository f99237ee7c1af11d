"""Remote runs and checkpoints, downloaded into the cache of this machine and verified there.

What a run writes is in its working folder, CACHE/runs/NAME-DIGEST; copies for reading are in CACHE/fetched/...
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from depthray.checkpoints import select
from depthray.checkpoints.remote_checkpoints import complete_checkpoints, download_checkpoint, is_good, locked
from depthray.checkpoints.select import CheckpointName
from depthray.errors import CheckpointError, UsageError
from depthray.runs.layout import CHECKPOINTS, IDENTITY, PROGRESS, RECIPE, STOP
from depthray.storage import environment, remote
from depthray.storage.remote import RemoteFolder


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


def prepare_to_resume(run: RemoteFolder, working: Path, log: Callable[[str], None]) -> None:
    """Make the working folder ready to resume a remote run: progress, and the newest good checkpoint of both folders.

    A damaged checkpoint is passed over and reported; CheckpointError where there are some and none is good.
    """
    with locked(working):
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
    local_names = [path.name for path in select.committed(working / CHECKPOINTS) if is_good(path)]
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


def _download_longer_progress(run: RemoteFolder, working: Path) -> None:
    """Continue the longer of both progress files; the one of this machine may be ahead of what was uploaded."""
    mine, size = working / PROGRESS, run.size(PROGRESS)
    if size and size > (mine.stat().st_size if mine.exists() else 0):
        run.download(PROGRESS, mine)
