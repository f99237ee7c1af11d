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
from depthray.config.overrides import parse_yaml
from depthray.config.sections import Recipe
from depthray.data import sources
from depthray.errors import CheckpointError, UsageError


@dataclass(frozen=True)
class CheckpointContents:
    """The contents of a checkpoint."""

    weights: dict[str, Tensor]
    state: dict[str, Any]  # nested dicts, lists and tuples of tensors and plain values
    recipe: Recipe
    metrics: dict[str, float]
    epoch: int
    step: int
    fingerprint: str


def load(path: Path, *, state: bool = False) -> CheckpointContents:
    """The contents of a checkpoint, all of its files verified; the training state only if asked for."""
    record = verify(path) if not state else manifest.read(path)
    data = {
        name: manifest.read_file(path / name, file) for name, file in record.files.items() if state or name != STATE
    }
    return CheckpointContents(
        weights=read_weights(data[WEIGHTS], where=path / WEIGHTS),
        state=read_state(data[STATE], where=path / STATE) if state else {},
        recipe=_parse_recipe(data[RECIPE], where=path),
        metrics=_parse_metrics(data[METRICS]),
        epoch=record.epoch,
        step=record.step,
        fingerprint=record.fingerprint,
    )


def read_recipe(path: Path) -> Recipe:
    """The recipe of a checkpoint, its file verified."""
    expected = manifest.read(path).files[RECIPE]
    return _parse_recipe(manifest.read_file(path / RECIPE, expected), where=path)


def read_metrics(path: Path) -> dict[str, float]:
    """The metrics of a checkpoint, NaN where there was no number; none where they cannot be read."""
    try:
        return _parse_metrics((path / METRICS).read_bytes())
    except OSError:
        return {}


def _parse_recipe(data: bytes, *, where: Path) -> Recipe:
    try:
        parsed = recipe.build(parse_yaml(data, where=where / RECIPE), where=str(where / RECIPE))
        models.check(parsed.model, where=RECIPE)
        sources.check(parsed.data, where=RECIPE)
    except UsageError as error:
        raise CheckpointError(f"{where}: its recipe does not fit this version of depthray: {error}") from None
    return parsed


def _parse_metrics(data: bytes) -> dict[str, float]:
    try:
        tree = json.loads(data)
        return {key: math.nan if value is None else float(value) for key, value in tree.items()}
    except (ValueError, AttributeError, TypeError):
        return {}  # scores are only for choosing among checkpoints: without them this one is the last choice
