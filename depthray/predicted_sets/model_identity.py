"""Which network predicted a data set: recorded beside the predictions, and compared before more are added."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from depthray.checkpoints import manifest
from depthray.config.sections import Recipe
from depthray.runs.layout import CHECKPOINTS
from depthray.runtimes import export_folder
from depthray.storage.remote import is_remote, normalize_address


@dataclass(frozen=True)
class ModelIdentity:
    """What predictions and labels say of the network that made them."""

    name: str  # of the run, or of the folder of an export or of a checkpoint outside of a run
    sha256: str  # of the checkpoint's weights, or of all that an export consists of
    architecture: str
    depth_kind: str  # metric, or what its numbers are instead of metres
    epoch: int
    step: int
    fitted: dict[str, Any]  # what was calibrated afterwards, which the same weights predict other numbers with

    def as_record(self) -> dict[str, Any]:
        """For JSON: the facts of the network, without what was fitted."""
        return {key: value for key, value in asdict(self).items() if key != "fitted"}


def identify(path: Path, recipe: Recipe, *, name: str) -> ModelIdentity:
    """The identity of a checkpoint or an export of this machine, from its manifest; CheckpointError if damaged."""
    if export_folder.is_export(path):
        spec, digest = export_folder.read(path), export_folder.identity(path)
        return ModelIdentity(name, digest, recipe.model.name, spec.depth_kind, spec.epoch, spec.step, {})
    record = manifest.read(path)
    fitted = {
        key: asdict(value)
        for key, value in (("calibration", record.calibration), ("temperature", record.temperature))
        if value is not None
    }
    digest = record.files[manifest.WEIGHTS].sha256
    return ModelIdentity(name, digest, recipe.model.name, recipe.depth_kind, record.epoch, record.step, fitted)


def name_of(model: str | Path, path: Path) -> str:
    """The name of a model as the user gave it, which is at `path` on this machine: of its run, else of its folder."""
    given = normalize_address(model) if is_remote(model) else os.path.realpath(path)
    parts = PurePosixPath(given).parts
    return parts[parts.index(CHECKPOINTS) - 1] if CHECKPOINTS in parts[1:] else parts[-1]
