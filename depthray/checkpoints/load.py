"""Reading a checkpoint: weights, training state, recipe and metrics, each file verified first."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from depthray import models
from depthray.checkpoints import manifest
from depthray.checkpoints.manifest import METRICS, RECIPE, STATE, WEIGHTS, verify
from depthray.checkpoints.serialize import read_state, read_weights
from depthray.config import recipe
from depthray.config.sections import Recipe
from depthray.data import sources
from depthray.errors import CheckpointError, UsageError


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
        metrics=metrics_of(path),
        epoch=record.epoch,
        step=record.step,
        fingerprint=record.fingerprint,
    )


def recipe_of(path: Path) -> Recipe:
    """The recipe of a checkpoint, its file verified."""
    manifest.check_file(path / RECIPE, manifest.read(path).files[RECIPE])
    try:
        made = recipe.read(str(path / RECIPE))
        models.check(made.model, where=RECIPE)
        sources.check(made.data, where=RECIPE)
    except UsageError as error:
        raise CheckpointError(f"{path}: its recipe does not fit this version of depthray: {error}") from None
    return made


def metrics_of(path: Path) -> dict[str, float]:
    """The metrics of a checkpoint, NaN where there was no number; none where they cannot be read."""
    try:
        tree = json.loads((path / METRICS).read_bytes())
        return {key: math.nan if value is None else float(value) for key, value in tree.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
