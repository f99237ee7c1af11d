"""Folders of runs in which nothing was trained: an attempt that failed or was killed before its first step.

Such a folder is free for another run, and what the attempt has made in it is removed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from depthray.checkpoints import select
from depthray.errors import DepthrayError
from depthray.runs import layout, progress
from depthray.storage.folders import AnyFolder, LocalFolder, open_folder

STARTING = 60.0  # seconds without a sign of life after which an attempt is not about to train any more
MADE = (layout.PROGRESS, layout.TENSORBOARD, layout.RAY, layout.STOP)


def is_free(folder: AnyFolder) -> bool:
    """Whether a run was begun in a folder that has no checkpoint and no step, and that no process is about to train."""
    records = progress.read_from(folder)
    if _has_trained(folder, records):
        return False
    last = progress.last_state(records)
    if last and last.state != "running":
        return True
    return time.time() - _last_sign(folder, records) > STARTING


def clear(folder: AnyFolder) -> None:
    """Remove what an attempt without a step has left, but for its recipe."""
    for name in (*MADE, layout.CHECKPOINTS):
        folder.remove(name)


def discard(run: Path | str) -> None:
    """Remove a run's folder after an error before its first step; one that has recorded its failure stays, but free.

    Files that no run makes stay as well. Storage that fails is no further error.
    """
    with suppress(DepthrayError, OSError):
        folder = open_folder(run, retry_seconds=0)
        records = progress.read_from(folder)
        last = progress.last_state(records)
        if (last and last.state != "running") or _has_trained(folder, records):
            return
        clear(folder)
        for name in (layout.RECIPE, layout.IDENTITY):
            folder.remove(name)
        if isinstance(folder, LocalFolder):
            folder.path.rmdir()  # refused where anything else is in it


def _has_trained(folder: AnyFolder, records: Sequence[progress.Record]) -> bool:
    """Whether a step was recorded, or there is a checkpoint."""
    below = folder / layout.CHECKPOINTS
    has_step = any(record["kind"] in ("interval", "epoch") for record in records)
    return has_step or any(select.CheckpointName.parse(name.rstrip("/")) for name in below.names())


def _last_sign(folder: AnyFolder, records: Sequence[progress.Record]) -> float:
    """When an attempt last did something, in seconds since 1970; 0 where nothing shows it."""
    times = [float(record.get("time", 0.0)) for record in records]
    if isinstance(folder, LocalFolder):
        with suppress(OSError):
            times.append((folder.path / layout.RECIPE).stat().st_mtime)
    return max(times, default=0.0)
