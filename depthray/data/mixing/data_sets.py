"""Several data sets of a run, each read as the one of a recipe of its own.

`resolve` gives the recipe that is trained and scored: sets whose weights are all 0 are left out of it, and what the
others leave out is filled in. Where one set remains, that is the recipe of a run with data.root, and nothing shows that
there were others. So whoever asks for data, losses or protocols of a recipe resolves it first.
"""

from __future__ import annotations

from typing import Any

from depthray.config import own_code
from depthray.config.sections import Data, DataSet, Loss, Recipe


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with the data sets that it uses: none in data.sets, where it is one, or two and more, complete."""
    data = recipe.data
    if not data.sets:
        return recipe
    used = [each for each in data.sets if each.is_used]
    if len(used) == 1:
        return _recipe_of(recipe, used[0])
    sets = tuple(_complete(recipe, each) for each in used)
    return recipe.model_copy(update={"data": _of_sets(data, sets)})


def resolve_data(data: Data) -> Data:
    """The data section of `resolve`."""
    return resolve(Recipe(data=data)).data


def sections_of(data: Data) -> list[Data]:
    """The data sections of `recipes_of`."""
    return [each.data for each in recipes_of(Recipe(data=data))]


def recipes_of(recipe: Recipe) -> list[Recipe]:
    """A recipe for each data set that a recipe uses, with data.root, and the loss and the protocol of that set."""
    resolved = resolve(recipe)
    return [_recipe_of(resolved, each) for each in resolved.data.sets] or [resolved]


def losses_of(recipe: Recipe) -> tuple[Loss, ...]:
    """The loss of each data set that a recipe uses, in their order."""
    return tuple(each.loss for each in recipes_of(recipe))


def without_sets(recipe: Recipe, **values: Any) -> Recipe:
    """The recipe on one data set in place of its own, of which `values` are keys; it predicts what it predicted."""
    kind = recipe.depth_kind
    loss = next(each.loss for each in (*recipes_of(recipe), recipe) if each.loss.depth_kind == kind)
    return recipe.model_copy(update={"data": one_set(recipe.data, **values), "loss": loss})


def one_set(data: Data, **values: Any) -> Data:
    """The section with one data set in place of those it has: `root`, `source` and what else is given."""
    if "root" in values:
        values = {"intrinsics": None, **values}  # those of other frames would be a guess
    return data.model_copy(update={"sets": (), **values})


def describe(data: Data) -> str:
    """Where the frames of a resolved section are, their form and unit."""
    if data.sets:
        each = zip(data.sets, sections_of(data), strict=True)
        return "; ".join(f"{one.name}: {describe(section)}" for one, section in each)
    form = own_code.short_name(data.source)
    known = ", ".join(text for text in (form, data.encoding) if text)
    return f"{data.root} ({known})" if data.root else form


def _complete(recipe: Recipe, each: DataSet) -> DataSet:
    data = recipe.data
    values = {
        "encoding": each.encoding or data.encoding,
        "min_depth": data.min_depth if each.min_depth is None else each.min_depth,
        "max_depth": data.max_depth if each.max_depth is None else each.max_depth,
        "intrinsics": each.intrinsics or data.intrinsics,
        "loss": each.loss or recipe.loss,
        "protocol": each.protocol or recipe.eval.protocol,
    }
    return each.model_copy(update=values)


def _of_sets(data: Data, sets: tuple[DataSet, ...]) -> Data:
    """The section with these sets, and with limits that all of their depth is within."""
    least = min(each.min_depth for each in sets if each.min_depth is not None)
    most = max(each.max_depth for each in sets if each.max_depth is not None)
    return data.model_copy(update={"sets": sets, "min_depth": least, "max_depth": most})


def _recipe_of(recipe: Recipe, each: DataSet) -> Recipe:
    """The recipe of one of the sets."""
    own = _complete(recipe, each)
    values = {key: getattr(own, key) for key in ("root", "source", "encoding", "min_depth", "max_depth", "intrinsics")}
    sections = {
        "data": one_set(recipe.data, **values),
        "loss": own.loss,
        "eval": recipe.eval.model_copy(update={"protocol": own.protocol}),
    }
    return recipe.model_copy(update=sections)
