"""Reading a checkpoint: weights, training state, recipe and metrics, each file verified before it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthray import models
from depthray.checkpoints import manifest, model_facts
from depthray.checkpoints.calibration import NETWORK, Calibration, Temperature
from depthray.checkpoints.manifest import METRICS, RECIPE, STATE, WEIGHTS
from depthray.checkpoints.model_facts import ModelFacts
from depthray.checkpoints.origin import Origin
from depthray.config import own_code
from depthray.config import recipe as recipes
from depthray.config.overrides import parse_yaml
from depthray.config.own_code import CodeRecord
from depthray.config.sections import Recipe
from depthray.data import sources
from depthray.errors import CheckpointError, UsageError

if TYPE_CHECKING:  # recipes and metrics are read without torch, which takes seconds to import
    from torch import Tensor, nn


AS_IT_IS = Calibration(shift=0.0)


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
    origin: Origin | None = None  # of the weights that the run started from
    weights_sha256: str = ""  # of the file of weights that was read
    calibration: Calibration | None = None  # of the depth that the weights predict
    temperature: Temperature | None = None  # of the confidence that the weights predict
    arithmetic: dict[str, str] = field(default_factory=dict)  # device, precision, deterministic: for the manifest
    facts: ModelFacts | None = None  # what it was trained on; None of a checkpoint of before there were any


def load(path: Path, *, state: bool = False, trust: bool = False) -> CheckpointContents:
    """The contents of a checkpoint, every file that is read verified. With `trust`, its own code may be imported.

    Without `state` only the presence and size of the training state are checked: predicting does not need it, and it is
    two thirds of the bytes. `manifest.verify` reads all files.
    """
    from depthray.checkpoints.serialize import read_state, read_weights

    record = manifest.read(path)
    if not state:
        manifest.check_size(path / STATE, record.files[STATE])
    data = {
        name: manifest.read_file(path / name, file) for name, file in record.files.items() if state or name != STATE
    }
    return CheckpointContents(
        weights=read_weights(data[WEIGHTS], where=path / WEIGHTS),
        state=read_state(data[STATE], where=path / STATE) if state else {},
        recipe=parse_recipe(data[RECIPE], where=path, code=record.code, trust=trust),
        metrics=parse_metrics(data[METRICS]),
        epoch=record.epoch,
        step=record.step,
        fingerprint=record.fingerprint,
        origin=record.origin,
        weights_sha256=record.files[WEIGHTS].sha256,
        calibration=record.calibration,
        temperature=record.temperature,
        facts=_facts(data, path),
    )


def build_network(contents: CheckpointContents, *, where: str | PathLike[str]) -> nn.Module:
    """The network of a checkpoint's own recipe with its weights, on the CPU, matrices of LoRA merged into them.

    Its depth and its confidence are corrected where the checkpoint is calibrated.
    """
    from depthray.models.layers import lora
    from depthray.models.layers.calibrated import Calibrated

    recipe = contents.recipe
    network = models.build_model(recipe.model, recipe.data.inputs)
    try:
        network.load_state_dict(contents.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{where}: the weights do not fit the recipe: {reason}") from None
    network, fitted, temperature = lora.merge(network), contents.calibration or AS_IT_IS, contents.temperature
    if temperature is not None and temperature.of != NETWORK:
        temperature = None  # of a spread of predictions, whose network applies it
    if fitted is AS_IT_IS and temperature is None:
        return network
    factor = 1.0 if temperature is None else temperature.factor
    return Calibrated(network, shift=fitted.shift, slope=fitted.slope, temperature=factor)


def read_recipe(path: Path, *, trust: bool = False) -> Recipe:
    """The recipe of a checkpoint, its file verified. With `trust`, its own code may be imported."""
    record = manifest.read(path)
    data = manifest.read_file(path / RECIPE, record.files[RECIPE])
    return parse_recipe(data, where=path, code=record.code, trust=trust)


def read_facts(path: Path) -> ModelFacts | None:
    """What a checkpoint's network was trained on, its file verified; None where the checkpoint does not say."""
    record = manifest.read(path)
    kept = {name: file for name, file in record.files.items() if name == model_facts.NAME}
    return _facts({name: manifest.read_file(path / name, file) for name, file in kept.items()}, path)


def read_metrics(path: Path) -> dict[str, float]:
    """The metrics of a checkpoint, NaN where there was no number; none where they cannot be read."""
    try:
        return parse_metrics((path / METRICS).read_bytes())
    except OSError:
        return {}


def parse_recipe(data: bytes, *, where: Path, code: Sequence[CodeRecord] = (), trust: bool = False) -> Recipe:
    """The recipe of a checkpoint from the bytes that were verified: the file could be replaced between two reads.

    Own code that it names is not imported here, and needed by what uses it alone: predicting needs no loss.
    """
    try:
        parsed = recipes.build(parse_yaml(data, where=where / RECIPE), where=str(where / RECIPE))
        if not own_code.is_own(parsed.model.name):
            models.check(parsed.model, where=RECIPE)
        if not any(own_code.is_own(form) for form in parsed.data.forms):
            sources.check(parsed.data, where=RECIPE)
    except UsageError as error:
        raise CheckpointError(f"{where}: its recipe does not fit this version of depthray: {error}") from None
    return own_code.admit(parsed, code, where, trust=trust)


def parse_metrics(data: bytes) -> dict[str, float]:
    """Scores from the bytes of a checkpoint's file; none where these are no scores."""
    try:
        tree = json.loads(data)
        return {key: math.nan if value is None else float(value) for key, value in tree.items()}
    except (ValueError, AttributeError, TypeError):
        return {}  # scores are only for choosing among checkpoints: without them this one is the last choice


def _facts(data: dict[str, bytes], path: Path) -> ModelFacts | None:
    name = model_facts.NAME
    return model_facts.parse(data[name], where=path / name) if name in data else None
