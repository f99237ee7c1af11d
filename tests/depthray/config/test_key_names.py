"""Which key of a recipe a bare, misplaced or foreign name means."""

from __future__ import annotations

import pytest

from depthray.config.key_names import OTHER_NAMES, nearest_key, suggest_key
from depthray.config.recipe import flatten
from depthray.config.sections import Optim, Recipe


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("epochs", "train.epochs"),
        ("Batch-Size", "train.batch_size"),
        ("learning_rate", "optim.lr"),
        ("imgsz", "data.size"),
        ("max_depht", "data.max_depth"),
        ("encoder", "model.encoder"),
        ("zzz", ""),
    ],
)
def test_nearest_key(name: str, key: str) -> None:
    assert nearest_key(name, Recipe) == key


def test_own_section_before_near_names_of_others() -> None:
    assert suggest_key("lrr", Optim, Recipe) == " (did you mean 'lr'?)"
    assert "choose from: average" in suggest_key("zzz", Optim, Recipe)


def test_other_names_are_of_keys_that_exist() -> None:
    known = flatten(Recipe())
    assert not [key for key in OTHER_NAMES.values() if key not in known and not key.startswith("model.")]
