"""A recipe says everything about a run's numbers. Defaults <- YAML file <- dotted words, typed and checked.

`load("unet-resnet34", ["optim.lr=3e-4"])` reads `recipes/unet-resnet34.yaml` (or a path), applies the words in order
and returns a frozen `Recipe`. Whatever is unknown or out of range is a `UsageError` naming the key.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from depthray.config.overrides import apply_word, read_yaml
from depthray.config.sections import Data, Monitor, Recipe
from depthray.errors import UsageError, did_you_mean
from depthray.storage import remote

RECIPES = Path(__file__).parents[1] / "recipes"


def names() -> list[str]:
    """The recipes that come with depthray."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load(name: str, words: Sequence[str] = (), *, training: bool = True) -> Recipe:
    """The recipe of a name or YAML path with dotted words (`optim.lr=3e-4`) applied in order; see `parse`."""
    path = _find(name)
    tree = read_yaml(path)
    for word in words:
        apply_word(tree, word)
    return parse(tree, where=name, training=training)


def parse(tree: dict[str, Any], *, where: str, training: bool = True) -> Recipe:
    """Check a tree of plain values; the first fault is raised as a `UsageError` naming its key.

    Keys that only training relates to each other may disagree where a recipe is read for its data or to be scored.
    """
    try:
        recipe = Recipe.model_validate(_as_lists(tree, Recipe))
    except ValidationError as error:
        raise UsageError(f"{where}: {_first_fault(error)}") from None
    from depthray import models
    from depthray.data import sources
    from depthray.evaluation import protocols

    models.check(recipe.model, where=where)
    protocols.check(recipe.eval.protocol, where=where)
    sources.check(recipe.data, where=where)
    if training:
        for check in (_check_monitor, _check_range, _check_stages):
            check(recipe, where=where)
    return recipe


def _check_monitor(recipe: Recipe, *, where: str) -> None:
    """A run is ranked by a score of something it is taught; else that shows only after the first epoch."""
    from depthray.evaluation.protocols import PROTOCOLS

    section, targets = recipe.eval, ",".join(recipe.data.targets)
    protocol = PROTOCOLS[section.protocol]
    scored = [name for name in protocol.scores(recipe.data.targets) if name in get_args(Monitor)]
    if not scored:
        raise UsageError(
            f"{where}: eval.protocol={section.protocol} scores {' and '.join(protocol.needs)}, but data.targets is "
            f"{targets}; choose another protocol, e.g. plain"
        )
    if section.monitor not in scored:
        raise UsageError(
            f"{where}: eval.monitor={section.monitor} is not scored by eval.protocol={section.protocol} with "
            f"data.targets={targets}; choose from: {', '.join(scored)}"
        )


def _check_range(recipe: Recipe, *, where: str) -> None:
    """A network is not taught depths beyond those it is made for."""
    farthest = _farthest(recipe)
    if "depth" in recipe.data.targets and farthest is not None and recipe.data.max_depth > farthest:
        raise UsageError(
            f"{where}: data.max_depth={recipe.data.max_depth:g} is beyond model.max_depth={farthest:g}, the farthest "
            f"that {recipe.model.name} is made for; give model.max_depth={recipe.data.max_depth:g} too, and an "
            f"eval.protocol of that range (now {recipe.eval.protocol})"
        )


def _farthest(recipe: Recipe) -> float | None:
    """Metres of model.max_depth, given or by default; None where the architecture has no such option.

    The default is looked up only where the data differ from theirs: the look costs an import of torch.
    """
    given: float | None = recipe.model.options.get("max_depth")
    if given is not None or recipe.data.max_depth <= Data.model_fields["max_depth"].default:
        return given
    build = import_module(f"depthray.models.{recipe.model.name}").build
    option = inspect.signature(build).parameters.get("max_depth")
    return None if option is None else float(option.default)


def _check_stages(recipe: Recipe, *, where: str) -> None:
    """Every stage of the weights of scales must be one that loss.multiscale can take."""
    wanted, stages = len(recipe.loss.multiscale_weights), recipe.curriculum.scale_weights
    if stages and not recipe.loss.multiscale:
        raise UsageError(f"{where}: curriculum.scale_weights are weights of loss.multiscale, which is 0; set it too")
    for number, weights in enumerate(stages):
        if len(weights) != wanted or not sum(weights):
            fault = "are all 0" if len(weights) == wanted else f"are {len(weights)} weights"
            raise UsageError(
                f"{where}: curriculum.scale_weights.{number} {fault}; give {wanted}, as many as "
                "loss.multiscale_weights has, one of them above 0"
            )


def _as_lists(tree: Any, section: type[BaseModel]) -> Any:
    """The tree with a lone value as a list of one, where its key takes any number of them."""
    if not isinstance(tree, dict):
        return tree
    found = dict(tree)
    for key, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in tree:
            found[key] = _as_lists(tree[key], kind)
        elif get_args(kind)[1:] == (...,) and isinstance(tree.get(key), str | int | float):
            found[key] = [tree[key]]
    return found


def absolute(recipe: Recipe) -> Recipe:
    """The recipe with the paths in it from the root: processes that train it may run in other folders."""
    data = {"root": located(recipe.data.root)} if recipe.data.root else {}
    options = {
        key: os.path.realpath(value)
        for key, value in recipe.model.options.items()
        if isinstance(value, str) and Path(value).suffix and os.path.isfile(value)
    }
    sections = {"data": recipe.data.model_copy(update=data), "model": recipe.model.model_copy(update=options)}
    return recipe.model_copy(update=sections)


def located(where: str | Path) -> str:
    """A place of data as a process in any other folder finds it: a path from the root, or the address it is."""
    return remote.address(where) if remote.is_remote(where) else os.path.realpath(where)


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
