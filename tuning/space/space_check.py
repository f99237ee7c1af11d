"""A space held against a recipe before the first trial, so that no trial ends on what could have been known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from depthray.config import recipe as recipes
from depthray.config.overrides import apply_word
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.training import preflight
from tuning.space.dimension import LOGARITHMIC, Dimension, text, words

if TYPE_CHECKING:
    from tuning.space.space import Space

SAMPLES = 64  # configurations that are tried as wholes
COMPANY = 8  # configurations in which a value is tried that the recipe alone refuses
OUTLINES = 24  # different networks and losses that are rehearsed
FRAMES = "decides which frames there are and what is known of them, and scores compare on the same ones only"
SCORE = "decides how trials are scored, and scores compare under the same rules only"
BUDGET = "is the budget of a trial, and trials compare at the same one only"
NOTHING = "changes no score"
SEED = "is luck, not a setting; the best configurations are tried again under other seeds"
UNSEARCHABLE = (
    (("data.split", "data.split.*"), f"{FRAMES}; a split is fixed by data.val_fraction, data.split_seed and the index"),
    (("data.source", "data.root", "data.encoding", "data.targets", "data.frames"), FRAMES),
    (("data.min_depth", "data.max_depth"), FRAMES),
    (("data.val_fraction", "data.split_seed", "data.sparse", "data.sparse.*"), FRAMES),
    (("data.order",), "is chosen by where the data lie and how many nodes read them, not by what trains well"),
    (("eval", "eval.*"), SCORE),
    (("train.epochs", "train.patience", "train.max_minutes", "finetune.epochs"), BUDGET),
    (("about", "data.workers", "train.max_bad_steps", "train.save_every_steps"), NOTHING),
    (("train.keep_best", "train.log_seconds"), NOTHING),
    (("seed",), SEED),
)
Judge = Callable[[Mapping[str, Any]], str]  # configuration -> what is wrong with the recipe it makes, "" for nothing


def check(space: Space, recipe: Recipe, *, where: str) -> None:
    """Raise UsageError for the first fault: a key, a range, a value, or a configuration that the recipe cannot take.

    What each configuration makes of the recipe is parsed, its network built without memory and its loss computed on
    one blank image; weights that it begins with are read where keys of `model` are searched.
    """
    keys = [dimension.key for dimension in space.dimensions] + [key for point in space.points for key in point]
    for key in dict.fromkeys(keys):
        _check_key(key, recipe, where=where)
    for dimension in space.dimensions:
        if fault := _range_fault(dimension):
            raise UsageError(f"{where}: {dimension.key}: {fault}")
    pretrained = any(key.startswith("model.") for key in keys)
    judge = partial(_fault, recipe=recipe, pretrained=pretrained, known={})
    if fault := judge({}):
        raise UsageError(f"{where}: the recipe cannot be trained as it is: {fault}")
    for dimension in space.dimensions:
        _check_ends(dimension, space, judge, where=where)
    _check_wholes(space, judge, where=where)
    _check_points(space.points, judge, where=where)


def _check_key(key: str, recipe: Recipe, *, where: str) -> None:
    known = list(recipes.flatten(recipe))
    for patterns, reason in UNSEARCHABLE:
        if any(fnmatchcase(key, pattern) for pattern in patterns):
            instead = (
                f"; leave it out, or give {key}=... as a word of the command, for all trials" if key in known else ""
            )
            raise UsageError(f"{where}: {key} cannot be searched, since it {reason}{instead}")
    below = [each for each in known if each.startswith(f"{key}.")]
    if below:
        raise UsageError(f"{where}: {key} is a section; name a key of it, e.g. {below[0]}")
    if key not in known and not key.startswith("model."):  # which options a model has, depends on its name
        raise UsageError(f"{where}: unknown key '{key}'{_nearest(key, known)}")


def _nearest(key: str, known: Sequence[str]) -> str:
    section, _, name = key.rpartition(".")
    inside = [each for each in known if not section or each.rpartition(".")[0] == section]
    names = {each.rpartition(".")[2]: each for each in reversed(inside)}  # of equal names the first
    if near := get_close_matches(name, names, n=1, cutoff=0.5):
        return f" (did you mean '{names[near[0]]}'?)"
    if near := get_close_matches(key, known, n=1, cutoff=0.7):
        return f" (did you mean '{near[0]}'?)"
    return "; `depthray recipe show` lists the keys"


def _range_fault(dimension: Dimension) -> str:
    if dimension.kind == "choice":
        return _choice_fault(dimension.key, dimension.values)
    low, high = (text(end) for end in dimension.ends)
    if not dimension.low < dimension.high:
        return f"the range {low} to {high} is empty; give the low end first, and a higher one"
    if dimension.kind in LOGARITHMIC and dimension.low <= 0:
        return (
            f"{dimension.kind} from {low} is impossible, as 0 has no logarithm; give a low end above 0, or no log kind"
        )
    return ""


def _choice_fault(key: str, values: Sequence[Any]) -> str:
    if not values:
        return "the choice is empty; give two values or more"
    if len(values) == 1:
        return f"one value is no choice; give two or more, or {words({key: values[0]})[0]} as a word of the command"
    if double := [value for number, value in enumerate(values) if value in values[:number]]:
        return f"the choice has {text(double[0])} twice; once is enough"
    return ""


def _fault(point: Mapping[str, Any], *, recipe: Recipe, pretrained: bool, known: dict[Recipe, str]) -> str:
    """What is wrong with the recipe under a configuration, which is given as the words of a command would be."""
    tree = recipe.model_dump(mode="json")
    try:
        for word in words(point):
            apply_word(tree, word)
        made = preflight.parse(tree, where="recipe")
    except UsageError as error:
        return str(error).removeprefix("recipe: ")
    from depthray.training import dry_run  # waits for torch, which mistakes found above need not

    outline = dry_run.outline(made)
    if outline not in known and len(known) < OUTLINES:
        try:
            dry_run.rehearse(made, pretrained=pretrained)
            known[outline] = ""
        except UsageError as error:
            known[outline] = str(error)
    return known.get(outline, "")


def _check_ends(dimension: Dimension, space: Space, judge: Judge, *, where: str) -> None:
    """Each end or choice must be fit: in the recipe as it is, or in the company of values of the other keys."""
    rng = np.random.default_rng(0)
    others = [space.sample(rng) for _ in range(COMPANY)]
    for value in dimension.ends:
        alone = {dimension.key: value}
        fault = judge(alone)
        if fault and all(judge({**point, **alone}) for point in others):
            word = "" if fault.removeprefix("unknown key '").startswith(dimension.key) else f"{words(alone)[0]}: "
            raise UsageError(f"{where}: {word}{fault}{_remedy(fault, dimension)}")


def _remedy(fault: str, dimension: Dimension) -> str:
    if "valid integer" in fault and dimension.kind in ("uniform", "loguniform"):
        return f"; write {'logint' if dimension.kind in LOGARITHMIC else 'integer'} instead of {dimension.kind}"
    return _base_term(fault)


def _base_term(fault: str) -> str:
    if not fault.startswith("every loss weight is 0"):
        return ""
    return " beside the searched ones, or keep one of those above 0, e.g. {uniform: [0.1, 1]}"


def _check_wholes(space: Space, judge: Judge, *, where: str) -> None:
    """The whole grid where it is small, otherwise configurations by chance: values may be unfit only together."""
    for point in _some(space) if space.dimensions else ():
        if fault := judge(point):
            remedy = _base_term(fault) or "; narrow the range of one of these keys, or leave it out of the space"
            raise UsageError(f"{where}: its configuration {' '.join(words(point))} is refused: {fault}{remedy}")


def _some(space: Space) -> list[dict[str, Any]]:
    stepped = all(dimension.kind in ("choice", "integer", "logint") for dimension in space.dimensions)
    if stepped and math.prod(len(dimension.listed()) for dimension in space.dimensions) <= SAMPLES:
        return space.grid()
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(SAMPLES)]


def _check_points(points: Sequence[Mapping[str, Any]], judge: Judge, *, where: str) -> None:
    for number, point in enumerate(points, start=1):
        if point in points[: number - 1]:
            twin = points.index(point) + 1
            raise UsageError(f"{where}: point {number} is point {twin} again; seeds are repeated without that")
        if fault := judge(point):
            raise UsageError(f"{where}: point {number} ({' '.join(words(point))}) is refused: {fault}")
