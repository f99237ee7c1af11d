"""The checkpoint or export that a path or an address means: itself, or the best checkpoint of a run."""

from __future__ import annotations

import json
from pathlib import Path

from depthray.checkpoints import manifest, remote_checkpoints, select
from depthray.runs.layout import CHECKPOINTS
from depthray.runtimes import export_folder, remote_exports
from depthray.storage.remote import is_remote, normalize_address


def resolve(path: Path) -> Path:
    """The checkpoint or export meant by a path: itself, or of a run folder the best, or the last if none is scored.

    A remote one is downloaded into the cache of this machine.
    """
    if not is_remote(path):
        return path if export_folder.is_export(path) else select.resolve(path)
    url = normalize_address(path)
    if remote_exports.is_export(url):
        return remote_exports.cached_export(url)
    return remote_checkpoints.cached_checkpoint(url)


def summary(run: Path | str) -> tuple[Path | str, dict[str, float]]:
    """The best checkpoint of a run and its metrics. Raises CheckpointError where there is none yet."""
    if is_remote(run):
        url = normalize_address(run)
        name, metrics = remote_checkpoints.best_checkpoint(url)
        return f"{url}/{CHECKPOINTS}/{name}", metrics
    path = resolve(Path(run))
    return path, json.loads((path / manifest.METRICS).read_text(encoding="utf-8"))
