"""Recipes that earlier versions saved mean what they meant then; those written today have today's defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from depthray.cli.recipe import commented
from depthray.config import recipe as recipes
from depthray.config.sections import Augment, Recipe
from depthray.training import preflight

MADE = Path(__file__).parents[2] / "made_before" / "v0.1.0"
SAVED = sorted(MADE.glob("*/*/recipe.yaml"))


def saved_before(**changes: Any) -> dict[str, Any]:
    """The augment section of a run of version 0.2.0."""
    now = Augment(crop=0.9).model_dump()
    return {key: value for key, value in now.items() if key in Augment.keys_before} | changes


def test_depth_is_scaled_by_zooms_from_now_on() -> None:
    assert all(preflight.load(name).augment.zoom_depth for name in recipes.names())
    assert recipes.build({"augment": {"crop": 0.9}}, where="mine").augment.zoom_depth


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.parent.name)
def test_saved_runs_and_searches_keep_the_depth_they_had(path: Path) -> None:
    saved = preflight.load(str(path), training=False)
    assert not saved.augment.zoom_depth
    again = recipes.build(yaml.safe_load(recipes.dump(saved)), where="again")  # as a resumed run saves it
    assert again == saved
    assert not Recipe.model_validate(saved.model_dump()).augment.zoom_depth  # as it is sent to workers


def test_a_saved_recipe_takes_overrides() -> None:
    tree = {"augment": saved_before()}
    assert not recipes.build(tree, where="saved").augment.zoom_depth
    assert recipes.build({"augment": saved_before(zoom_depth=True)}, where="saved").augment.zoom_depth


def test_recipes_of_today_are_not_mistaken_for_older_ones(tmp_path: Path) -> None:
    loaded = preflight.load("unet-resnet34")
    for text in (recipes.dump(loaded), "\n".join(commented(loaded))):
        (tmp_path / "mine.yaml").write_text(text)
        assert preflight.load(str(tmp_path / "mine.yaml")).augment.zoom_depth


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.parent.name)
def test_saved_runs_keep_the_order_of_their_frames(path: Path) -> None:
    saved = preflight.load(str(path), training=False)
    assert saved.data.shuffle == "table"
    resumed = recipes.with_values_before(recipes.build({}, where="today"), saved)
    assert (resumed.data.shuffle, recipes.build({}, where="today").data.shuffle) == ("table", "auto")
