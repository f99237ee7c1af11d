"""Values of a recipe that fit the number of its training frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.config.small_data import KEYS, fit_to_frames


def values(recipe: Recipe) -> tuple[int, ...]:
    """Chunks, batch, steps of warm-up."""
    flat = recipes.flatten(recipe)
    return tuple(flat[key] for key in KEYS)


@pytest.mark.parametrize(
    ("frames", "fitted"),
    [
        (2000, (2, 16, 50)),
        (160, (2, 16, 50)),  # five steps an epoch on each chunk
        (159, (1, 16, 50)),
        (64, (1, 16, 50)),  # four steps an epoch, 64 epochs
        (40, (1, 8, 50)),
        (12, (1, 4, 19)),
        (3, (1, 2, 6)),  # below 4, so that there is a step at all
        (1, (1, 1, 6)),
    ],
)
def test_values_follow_the_number_of_frames(frames: int, fitted: tuple[int, ...]) -> None:
    made = recipes.read("unet-resnet34")
    recipe, notes = fit_to_frames(made, frames)
    assert values(recipe) == fitted
    assert frames // recipe.curriculum.chunks // recipe.train.batch_size >= 1
    assert bool(notes) == (recipe != made)


def test_the_line_names_old_and_new_values() -> None:
    _, (note,) = fit_to_frames(recipes.read("unet-resnet34"), 40)
    assert note.startswith("adjusted to 40 training frames: train.batch_size=8 (recipe: 16), curriculum.chunks=1 ")


def test_given_values_stay() -> None:
    made = recipes.read("unet-resnet34", ["train.batch_size=8"])
    assert values(fit_to_frames(made, 12, given=["train.batch_size"])[0]) == (1, 8, 6)
    assert fit_to_frames(made, 12, given=KEYS) == (made, [])


@pytest.mark.parametrize(("workers", "accumulate"), [(1, 1), (2, 1), (2, 2), (8, 2)])
def test_the_batch_divides_by_workers(workers: int, accumulate: int) -> None:
    made = recipes.read("unet-resnet34", [f"train.accumulate={accumulate}"])
    for frames in (1, 5, 20, 50):
        recipe, _ = fit_to_frames(made, frames, workers=workers)
        assert recipe.train.batch_size % (workers * accumulate) == 0


def test_too_few_frames_for_any_batch_leave_the_recipe(tmp_path: Path) -> None:
    made = recipes.read("unet-resnet34")
    assert fit_to_frames(made, 1, workers=2) == (made, [])
