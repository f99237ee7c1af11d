"""A recipe determines the numbers of a run. Defaults <- YAML file <- dotted overrides, typed and checked.

`read("unet-resnet34", ["optim.lr=3e-4"])` reads `recipes/unet-resnet34.yaml` (or a path), applies the overrides in
order and returns a frozen `Recipe`. A key that is unknown or out of range is a `UsageError` naming it. Whether the
recipe can be trained, with an architecture and a data source that exist, `depthray.training.preflight` checks.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from depthray.config import own_code
from depthray.config.deprecated import rename_keys
from depthray.config.key_names import section_in
from depthray.config.overrides import apply_override, find_yaml, read_yaml, yaml_names
from depthray.config.sections import Recipe
from depthray.config.validation import first_fault
from depthray.errors import UsageError
from depthray.storage import remote

RECIPES = Path(__file__).parents[1] / "recipes"


def names() -> list[str]:
    """The recipes that come with depthray, but for `originals`."""
    return [name for name in yaml_names(RECIPES) if "/" not in name]


def originals() -> list[str]:
    """`original/NAME`: the recipes of the seed systems as they were published."""
    return [name for name in yaml_names(RECIPES) if "/" in name]


def read(name: str, overrides: Sequence[str] = (), *, trust: bool = True) -> Recipe:
    """The recipe of a name or YAML path with dotted overrides (`optim.lr=3e-4`) applied in order; see `build`.

    Own code that it names is allowed (see `own_code`); with `trust=False`, as for a file of a run, that of overrides.
    """
    tree = read_yaml(find_yaml(name, RECIPES, kind="recipe"))
    rename_keys(tree)  # before the overrides, which may have the new name
    before = set() if trust else _own_names(tree, where=name)
    for override in overrides:
        apply_override(tree, override)
    recipe = build(tree, where=name)
    own_code.allow(own for _, own in own_code.names_in(recipe) if own not in before)
    return recipe


def override(recipe: Recipe, overrides: Sequence[str], *, where: str) -> Recipe:
    """A recipe that was read before with dotted overrides, whose own code is allowed."""
    tree = recipe.model_dump(mode="json")
    for each in overrides:
        apply_override(tree, each)
    before = {name for _, name in own_code.names_in(recipe)}
    changed = build(tree, where=where)
    own_code.allow(name for _, name in own_code.names_in(changed) if name not in before)
    return changed


def _own_names(tree: dict[str, Any], *, where: str) -> set[str]:
    return {name for _, name in own_code.names_in(build(tree, where=where))}


def build(tree: dict[str, Any], *, where: str) -> Recipe:
    """Check the types and ranges of a tree of plain values; the first fault is a `UsageError` naming its key."""
    try:
        return Recipe.model_validate(_as_lists(tree, Recipe))
    except ValidationError as error:
        raise UsageError(f"{where}: {first_fault(error, Recipe)}") from None


def _as_lists(tree: Any, section: type[BaseModel]) -> Any:
    """The tree with a single value as a list of one, where its key takes any number of them."""
    if not isinstance(tree, dict):
        return tree
    # `data.inputs=image` is how a list of one is written on a command line.
    listed = dict(tree)
    for key, field in section.model_fields.items():
        kind = field.annotation
        if key not in tree:
            continue
        if inner := section_in(kind):
            several = isinstance(tree[key], list | tuple)
            listed[key] = [_as_lists(each, inner) for each in tree[key]] if several else _as_lists(tree[key], inner)
        elif get_args(kind)[1:] == (...,) and isinstance(tree[key], str | int | float):
            listed[key] = [tree[key]]
    return listed


def absolute(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths: processes that train it may run in other folders."""
    data: dict[str, Any] = {"root": absolute_path(recipe.data.root)} if recipe.data.root else {}
    data["sets"] = tuple(
        each.model_copy(update={"root": absolute_path(each.root)}) if each.root else each for each in recipe.data.sets
    )
    # One that does not exist stays as it is, for the message that says so.
    weights = recipe.model.weights_path
    model = {"weights": os.path.realpath(weights)} if weights and os.path.exists(weights) else {}
    also = {"also": tuple(absolute_path(path) for path in recipe.eval.also)}
    sections = {
        "data": recipe.data.model_copy(update=data),
        "model": recipe.model.model_copy(update=model),
        "eval": recipe.eval.model_copy(update=also),
    }
    return recipe.model_copy(update=sections)


def absolute_path(where: str | Path) -> str:
    """The absolute path of data on this machine; an address stays an address."""
    return remote.normalize_address(where) if remote.is_remote(where) else os.path.realpath(where)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `read` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Dotted key -> value, of every key of the recipe."""
    return dict(_leaves(recipe.model_dump(mode="json"), ""))


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, as `flatten` has them, as a tree of plain values that `build` reads."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return _numbered_as_lists(tree)  # type: ignore[no-any-return]


def _numbered_as_lists(tree: dict[str, Any]) -> Any:
    values = {key: _numbered_as_lists(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return list(values.values()) if values and all(key.isdecimal() for key in values) else values


def difference(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new), of the keys in which two recipes differ."""
    before, after = flatten(old), flatten(new)
    keys = [*before, *(key for key in after if key not in before)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def with_values_before(recipe: Recipe, saved: Recipe, *, given: Collection[str] = ()) -> Recipe:
    """The recipe with what an earlier version did, where the saved one, of the run that it resumes, has that.

    Of the keys that later versions have another default for; one that is `given` on the command line is left as it is.
    """
    kept = {}
    for name in Recipe.model_fields:
        section: BaseModel = getattr(recipe, name)
        before: Mapping[str, Any] = getattr(section, "values_before", {})
        values = {key: value for key, value in before.items() if getattr(getattr(saved, name), key) == value}
        kept[name] = {key: value for key, value in values.items() if f"{name}.{key}" not in given}
    sections = {name: getattr(recipe, name).model_copy(update=values) for name, values in kept.items() if values}
    return recipe.model_copy(update=sections)


def _leaves(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves += _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):  # as overrides name them: data.sets.0
            leaves += _leaves({str(number): each for number, each in enumerate(value)}, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves
