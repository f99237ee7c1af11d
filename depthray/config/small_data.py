"""Values of a recipe that fit the number of its training frames: recipes are made for some hundreds and more.

With too few frames an epoch would have one step, or none, and the warm-up would never end. What is given on the command
line, or in a recipe file of the user's own, is left as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from depthray.config import recipe as recipes
from depthray.config.sections import Recipe

KEYS = ("curriculum.chunks", "train.batch_size", "optim.warmup_steps")
CHUNK_STEPS = 5  # steps of an epoch on one chunk, at least: with fewer there is no curriculum
EPOCH_STEPS = 4  # steps of an epoch, at least, as long as the batch stays at SMALLEST_BATCH
SMALLEST_BATCH = 4  # statistics of batch norm become too noisy below
WARMUP_SHARE = 0.2  # of all steps, at most; where it is more, half of that


def fit_to_frames(
    recipe: Recipe, frames: int, *, given: Collection[str] = (), workers: int = 1
) -> tuple[Recipe, list[str]]:
    """The recipe with values of `KEYS` for so many training frames, and a line on those that changed.

    `given` are dotted keys that keep their value. The batch stays divisible by `workers` and train.accumulate. Where
    even that batch needs more frames, the recipe is as it was.
    """
    values = {key: value for key, value in recipes.flatten(recipe).items() if key in KEYS}
    fitted = dict(values)
    if "curriculum.chunks" not in given and _steps(fitted, frames) < CHUNK_STEPS:
        fitted["curriculum.chunks"] = 1
    if "train.batch_size" not in given:
        fitted["train.batch_size"] = _batch_size(fitted, frames, unit=workers * recipe.train.accumulate)
    steps = _steps(fitted, frames) * (recipe.train.epochs + recipe.finetune.epochs)
    if "optim.warmup_steps" not in given and steps and fitted["optim.warmup_steps"] > WARMUP_SHARE * steps:
        fitted["optim.warmup_steps"] = int(WARMUP_SHARE * steps / 2)
    changed = {key: value for key, value in fitted.items() if value != values[key]}
    if not changed or not _steps(fitted, frames):
        return recipe, []
    text = ", ".join(f"{key}={value} (recipe: {values[key]})" for key, value in changed.items())
    return _with_values(recipe, changed), [
        f"adjusted to {frames} training frames: {text}; give a key to keep its value"
    ]


def _steps(values: dict[str, Any], frames: int) -> int:
    """The optimiser steps of an epoch."""
    return int(frames // values["curriculum.chunks"] // values["train.batch_size"])


def _batch_size(values: dict[str, Any], frames: int, *, unit: int) -> int:
    """The largest half, quarter ... of the batch with which an epoch has enough steps, divisible by `unit`."""
    batch: int = values["train.batch_size"]
    while _steps({**values, "train.batch_size": batch}, frames) < EPOCH_STEPS:
        half = batch // 2 // unit * unit
        has_step = _steps({**values, "train.batch_size": batch}, frames) > 0
        if not half or (has_step and half < SMALLEST_BATCH):
            break
        batch = half
    return batch


def _with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    for key, value in values.items():
        section, _, name = key.partition(".")
        recipe = recipe.model_copy(update={section: getattr(recipe, section).model_copy(update={name: value})})
    return recipe
