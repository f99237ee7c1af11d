"""Checks of a space against a recipe before the first trial, so that no trial fails on a known mistake."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np

from depthray.config import recipe as recipes
from depthray.config.overrides import apply_override
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.training import preflight
from tuning.space.dimension import LOG_KINDS, Dimension, overrides, to_yaml
from tuning.space.space import TERMS, Space

SAMPLES = 64  # complete configurations that are checked
COMPANIONS = 8  # configurations in which a value is tried that does not fit the baseline recipe
DRY_RUNS = 24  # different networks and losses whose first step is tried: each builds a network
FRAMES = "decides which frames there are and what they hold, and scores compare on the same frames only"
SCORE = "decides how trials are scored, and scores compare under the same rules only"
BUDGET = "is the budget of a trial, and trials compare at the same one only"
NOTHING = "changes no score"
OF_FRAMES = ("name", "source", "root", "encoding", "min_depth", "max_depth", "intrinsics")  # of a data set
SEED = "is luck, not a setting; the best configurations are repeated under other seeds"
UNSEARCHABLE = (
    (("data.split", "data.split.*"), f"{FRAMES}; a split is fixed by data.val_fraction, data.split_seed and the index"),
    (("data.source", "data.root", "data.encoding", "data.targets", "data.frames"), FRAMES),
    (("data.min_depth", "data.max_depth", "data.intrinsics", "data.recording", "data.recording.*"), FRAMES),
    (("data.sets", *(f"data.sets.*.{key}" for key in OF_FRAMES)), FRAMES),
    (("data.sets.*.protocol", "data.sets.*.overall"), SCORE),
    (("data.val_fraction", "data.split_seed", "data.sparse", "data.sparse.*"), FRAMES),
    (
        ("data.order", "data.shuffle"),
        "is chosen by where the data are stored and how many nodes read them, not by what trains well",
    ),
    (("eval", "eval.*"), SCORE),
    (
        (
            "data.epoch_frames",
            "train.epochs",
            "train.patience",
            "train.min_delta",
            "train.patience_ends",
            "train.max_minutes",
            "finetune.epochs",
        ),
        BUDGET,
    ),
    (("about", "data.workers", "augment.device", "train.max_bad_steps", "train.save_every_steps"), NOTHING),
    (("train.keep_best", "train.log_seconds", "train.deterministic"), NOTHING),
    (("seed",), SEED),
)
# Configuration -> what is wrong with its recipe, "" for nothing.
FindFault = Callable[[Mapping[str, Any]], str]


def check(space: Space, recipe: Recipe, *, where: str) -> None:
    """Raise UsageError for the first key, range, value or configuration that does not fit the recipe.

    The recipe of each configuration is parsed, its network built on the meta device and its loss computed on one blank
    image; the weights it starts from are read where keys of `model` are searched.
    """
    keys = [dimension.key for dimension in space.dimensions] + [key for point in space.points for key in point]
    for key in dict.fromkeys(keys):
        _check_key(key, recipe, where=where)
    for dimension in space.dimensions:
        if fault := _range_fault(dimension):
            raise UsageError(f"{where}: {dimension.key}: {fault}")
    _check_set_weights(space, recipe, where=where)
    # No other keys decide whether the weights fit, and reading them takes long.
    start = any(key.startswith("model.") for key in keys)
    find_fault = partial(_find_fault, recipe=recipe, start=start, known={})
    # First, or its faults would be reported as those of a range.
    if fault := find_fault({}):
        raise UsageError(f"{where}: the baseline recipe cannot be trained: {fault}")
    for dimension in space.dimensions:
        _check_ends(dimension, space, find_fault, where=where)
    _check_configurations(space, find_fault, where=where)
    _check_points(space.points, find_fault, where=where)


def _check_key(key: str, recipe: Recipe, *, where: str) -> None:
    known = list(recipes.flatten(recipe))
    for patterns, reason in UNSEARCHABLE:
        if any(fnmatchcase(key, pattern) for pattern in patterns):
            instead = (
                f"; leave it out, or override {key}=... on the command line, for all trials" if key in known else ""
            )
            raise UsageError(f"{where}: {key} cannot be searched, since it {reason}{instead}")
    below = [each for each in known if each.startswith(f"{key}.")]
    if below:
        raise UsageError(f"{where}: {key} is a section; name a key of it, e.g. {below[0]}")
    # The options of a model depend on its name, and a term of one's own may have any.
    if key not in known and not key.startswith(("model.", TERMS)):
        raise UsageError(f"{where}: unknown key '{key}'{_nearest(key, known)}")


def _check_set_weights(space: Space, recipe: Recipe, *, where: str) -> None:
    """Refuse weights of data sets that may be 0, where trials would not be scored on the same frames then."""
    for number, each in enumerate(recipe.data.sets):
        key = f"data.sets.{number}.weight"
        values = [end for dimension in space.dimensions if dimension.key == key for end in dimension.ends]
        values += [point[key] for point in space.points if key in point]
        if each.overall and any(not np.any(value) for value in values):  # of a list of weights: each of them
            raise UsageError(
                f"{where}: {key}=0 leaves out the validation frames of '{each.name}' as well, and scores compare on "
                f"the same frames only; search above 0, or override data.sets.{number}.overall=false for all trials"
            )


def _nearest(key: str, known: Sequence[str]) -> str:
    section, _, name = key.rpartition(".")
    inside = [each for each in known if not section or each.rpartition(".")[0] == section]
    names = {each.rpartition(".")[2]: each for each in reversed(inside)}  # of equal names the first wins
    if near := get_close_matches(name, names, n=1, cutoff=0.5):
        return f" (did you mean '{names[near[0]]}'?)"
    if near := get_close_matches(key, known, n=1, cutoff=0.7):
        return f" (did you mean '{near[0]}'?)"
    return "; `depthray recipe show` lists the keys"


def _range_fault(dimension: Dimension) -> str:
    if dimension.kind == "choice":
        return _choice_fault(dimension.key, dimension.values)
    low, high = (to_yaml(end) for end in dimension.ends)
    if not dimension.low < dimension.high:
        return f"the range {low} to {high} is empty; give the low end first, and a higher one"
    if dimension.kind in LOG_KINDS and dimension.low <= 0:
        return f"{dimension.kind} from {low} is impossible: 0 has no logarithm; give a low end above 0"
    return ""


def _choice_fault(key: str, values: Sequence[Any]) -> str:
    if not values:
        return "the choice is empty; give two values or more"
    if len(values) == 1:
        return (
            f"a choice of one value; give two or more, or override {overrides({key: values[0]})[0]} on the command line"
        )
    if duplicates := [value for number, value in enumerate(values) if value in values[:number]]:
        return f"the choice has {to_yaml(duplicates[0])} twice; once is enough"
    return ""


def _find_fault(point: Mapping[str, Any], *, recipe: Recipe, start: bool, known: dict[Recipe, str]) -> str:
    """What is wrong with the recipe of a configuration, "" for nothing; `known` caches the results of dry runs."""
    tree = recipe.model_dump(mode="json")
    try:
        for override in overrides(point):  # as text, the way a trial applies them
            apply_override(tree, override)
        trial_recipe = preflight.parse(tree, where="recipe")
    except UsageError as error:
        return str(error).removeprefix("recipe: ")
    from depthray.training import dry_run  # imports torch, which the checks above do not need

    outline = dry_run.cache_key(trial_recipe)
    if outline not in known and len(known) < DRY_RUNS:
        try:
            dry_run.check_first_step(trial_recipe, start=start)
            known[outline] = ""
        except UsageError as error:
            known[outline] = str(error)
    return known.get(outline, "")


def _check_ends(dimension: Dimension, space: Space, find_fault: FindFault, *, where: str) -> None:
    """Each end or choice must fit the baseline recipe, or some configuration of the other keys."""
    rng = np.random.default_rng(0)
    companions = [space.sample(rng) for _ in range(COMPANIONS)]
    for value in dimension.ends:
        alone = {dimension.key: value}
        fault = find_fault(alone)
        if fault and all(find_fault({**point, **alone}) for point in companions):
            prefix = "" if fault.removeprefix("unknown key '").startswith(dimension.key) else f"{overrides(alone)[0]}: "
            raise UsageError(f"{where}: {prefix}{fault}{_remedy(fault, dimension)}")


def _remedy(fault: str, dimension: Dimension) -> str:
    if "valid integer" in fault and dimension.kind in ("uniform", "loguniform"):
        return f"; write {'logint' if dimension.kind in LOG_KINDS else 'integer'} instead of {dimension.kind}"
    return _base_term(fault)


def _base_term(fault: str) -> str:
    if not fault.startswith("every loss weight is 0"):
        return ""
    return " next to the searched weights, or keep one of those above 0, e.g. {uniform: [0.1, 1]}"


def _check_configurations(space: Space, find_fault: FindFault, *, where: str) -> None:
    """Check the complete grid where it is small, otherwise random configurations: some values only clash together."""
    for point in _configurations_to_try(space) if space.dimensions else ():
        if fault := find_fault(point):
            remedy = _base_term(fault) or "; narrow the range of one of these keys, or leave it out of the space"
            raise UsageError(f"{where}: its configuration {' '.join(overrides(point))} is refused: {fault}{remedy}")


def _configurations_to_try(space: Space) -> list[dict[str, Any]]:
    is_discrete = all(dimension.kind in ("choice", "integer", "logint") for dimension in space.dimensions)
    if is_discrete and math.prod(len(dimension.grid_values()) for dimension in space.dimensions) <= SAMPLES:
        return space.grid()
    # The same ones each time: a space that was accepted once stays so.
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(SAMPLES)]


def _check_points(points: Sequence[Mapping[str, Any]], find_fault: FindFault, *, where: str) -> None:
    for number, point in enumerate(points, start=1):
        if point in points[: number - 1]:
            twin = points.index(point) + 1
            raise UsageError(
                f"{where}: point {number} is the same as point {twin}; the best are repeated under other seeds anyway"
            )
        if fault := find_fault(point):
            raise UsageError(f"{where}: point {number} ({' '.join(overrides(point))}) is refused: {fault}")
