"""A recipe says everything about a run's numbers. Defaults <- YAML file <- dotted words, typed and checked.

`load("unet-resnet34", ["optim.lr=3e-4"])` reads `recipes/unet-resnet34.yaml` (or a path), applies the words in order
and returns a frozen `Recipe`. Whatever is unknown or out of range is a `UsageError` naming the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from depthray.errors import UsageError, did_you_mean
from depthray.sections import MASK_MONITORS, Recipe
from depthray.words import apply_word, read_yaml

RECIPES = Path(__file__).parent / "recipes"


def names() -> list[str]:
    """The recipes that come with depthray."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load(name: str, words: Sequence[str] = ()) -> Recipe:
    """The recipe of a name or YAML path with dotted words (`optim.lr=3e-4`) applied in order."""
    path = _find(name)
    tree = read_yaml(path)
    for word in words:
        apply_word(tree, word)
    return parse(tree, where=name)


def parse(tree: dict[str, Any], *, where: str) -> Recipe:
    """Check a tree of plain values; the first fault is raised as a `UsageError` naming its key."""
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{where}: {_first_fault(error)}") from None
    from depthray import models, protocols
    from depthray.data import sources

    models.check(recipe.model, where=where)
    _check_monitor(recipe, where=where)
    protocols.check(recipe.eval.protocol, where=where)
    sources.check(recipe.data, where=where)
    return recipe


def _check_monitor(recipe: Recipe, *, where: str) -> None:
    """A run is ranked by a score of something it is taught; else that shows only after the first epoch."""
    wanted = "mask" if recipe.eval.monitor in MASK_MONITORS else "depth"
    if wanted not in recipe.data.targets:
        raise UsageError(
            f"{where}: eval.monitor={recipe.eval.monitor} scores {wanted}, but data.targets is "
            f"{','.join(recipe.data.targets)}; choose {'iou' if wanted == 'depth' else 'abs_rel'}"
        )


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Dotted key -> value, of every key of the recipe."""
    return dict(_leaves(recipe.model_dump(mode="json"), ""))


def difference(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new), of the keys in which two recipes differ."""
    before, after = flatten(old), flatten(new)
    keys = [*before, *(key for key in after if key not in before)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"recipe file {path} {'is not a file' if path.exists() else 'does not exist'}")
        return path
    if name not in names():
        raise UsageError(f"no recipe '{name}'{did_you_mean(name, names())}; a file is given as path/to/it.yaml")
    return RECIPES / f"{name}.yaml"


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, last = (str(part) for part in fault["loc"])
        fields = type_of(parents).model_fields
        return f"unknown key '{key}'{did_you_mean(last, fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message
    return f"{key}={fault['input']!r}: {message[0].lower()}{message[1:]}{_nearest(fault)}"


def _nearest(fault: Any) -> str:
    if fault["type"] != "literal_error":
        return ""
    choices = [choice.strip("' ") for choice in fault["ctx"]["expected"].replace(" or ", ",").split(",")]
    near = did_you_mean(str(fault["input"]), choices)
    return near if "did you mean" in near else ""


def type_of(path: Sequence[str]) -> type[BaseModel]:
    """The class of the section at a path of keys; the root is Recipe itself."""
    section: type[BaseModel] = Recipe
    for part in path:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel), path
        section = annotation
    return section


def _leaves(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves
