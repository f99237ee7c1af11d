"""What stands between a recipe and its run: form of the data, values for few frames, all checks; last the folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from depthray.config import recipe as recipes
from depthray.config import small_data
from depthray.config.overrides import read_yaml
from depthray.config.sections import Curriculum, Recipe
from depthray.data.mixing import data_sets
from depthray.data.mixing.epoch_frames import chosen_frames_of
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.data.split import split
from depthray.runs.run import prepare
from depthray.training.dry_run import check_before_run


def given_keys(name: str, overrides: Sequence[str]) -> set[str]:
    """The dotted keys that a user has chosen: by an override, or in a recipe file of their own.

    `name` is that of a recipe or the path of one. The original recipes are what somebody published, all of it.
    """
    keys = {override.partition("=")[0] for override in overrides}
    if name in recipes.names():
        return keys
    if name in recipes.originals():
        return {*keys, *small_data.KEYS}
    tree = read_yaml(Path(name))
    in_file = {key for key in small_data.KEYS if key.partition(".")[2] in (tree.get(key.partition(".")[0]) or {})}
    return keys | in_file


def prepare_checked(
    run: Path | str,
    recipe: Recipe,
    *,
    resume: bool,
    given: Collection[str] = small_data.KEYS,
    saved: Recipe | None = None,
    workers: int = 1,
    log: Callable[[str], None] = lambda _: None,
) -> Recipe:
    """Check data and network, and make the run's folder. Returns the recipe to train, fitted to the number of frames.

    The folder comes last: after an error the same command can be repeated. `given` are the keys that keep their value
    however few frames there are; `saved` is the recipe of the run to resume, whose values are kept as well.
    """
    source = open_source(recipe.data)
    if saved:  # made before values were fitted, or with these: either way the same values again
        mine, theirs = recipes.flatten(recipe), recipes.flatten(saved)
        given = {*given, *(key for key in small_data.KEYS if mine[key] == theirs[key])}
    recipe, notes = fit_to_source(recipe, source, given=given, workers=workers)
    check_before_run(recipe, start=not resume, source=source)
    prepare(run, recipe, resume=resume)
    for note in notes:
        log(note)
    return recipe


def fit_to_source(recipe: Recipe, source: Source, *, given: Collection[str], workers: int) -> tuple[Recipe, list[str]]:
    """The recipe with values that fit the number of training frames, and a line on those that changed."""
    resolved = data_sets.resolve(recipe)
    train = split(source.frames, resolved.data).train
    chosen = chosen_frames_of(source, train, resolved.data, Curriculum(), seed=recipe.seed)
    frames = chosen.size if chosen else len(train)
    return small_data.fit_to_frames(recipe, frames, given=given, workers=workers)
