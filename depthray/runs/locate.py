"""The checkpoint that a path or an address means: itself, or the best of a run."""

from __future__ import annotations

import json
from pathlib import Path

from depthray.checkpoints import manifest
from depthray.checkpoints.load import recipe_of
from depthray.checkpoints.select import FOLDER, best, committed, place
from depthray.errors import CheckpointError
from depthray.runs import download
from depthray.storage.remote import address, is_remote


def resolve(path: Path) -> Path:
    """The checkpoint meant by a path: itself, or of a run folder the best, or the last if none is scored.

    One that lies remote is fetched into the cache of this machine.
    """
    if is_remote(path):
        return download.fetched(address(path))
    if place(path.name) or (path / manifest.NAME).is_file():
        return path
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    paths = committed(root)
    if not paths:
        raise CheckpointError(f"{path}: neither a checkpoint nor a run folder with one in {FOLDER}/")
    return best(paths, recipe_of(paths[-1]).eval.monitor)


def summary(run: Path | str) -> tuple[Path | str, dict[str, float]]:
    """The best checkpoint of a run and its metrics. Raises CheckpointError where there is none yet."""
    if is_remote(run):
        name, scores = download.best(address(run))
        return f"{address(run)}/{FOLDER}/{name}", scores
    path = resolve(Path(run))
    scores = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    return path, scores
