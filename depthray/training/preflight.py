"""Whether a recipe can be trained: its sections checked against each other, its architecture, data form and protocol.

Nothing here needs torch, so that a mistake in a recipe is reported in a moment. See `dry_run` for the network itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_args

from depthray import models
from depthray.config import recipe as recipes
from depthray.config.batch_size import check_batch_size, possible_workers
from depthray.config.sections import TEACHER_MONITORS, Data, Monitor, Recipe
from depthray.data import sources
from depthray.data.mixing import data_sets
from depthray.errors import UsageError
from depthray.evaluation import protocols
from depthray.runtimes.passes import Passes

UNBOUNDED = ("relu", "elu", "none")  # heads whose depth model.max_depth does not limit


def load(name: str, overrides: Sequence[str] = (), *, training: bool = True, trust: bool = True) -> Recipe:
    """The recipe of a name or YAML path with dotted overrides (`optim.lr=3e-4`) applied in order; see `check`.

    With `trust=False`, as for the file of a run, own code that it names must have been allowed before.
    """
    return check(recipes.read(name, overrides, trust=trust), where=name, training=training)


def load_with_data(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of `load` with absolute paths, and the form that its data look like where no override names it."""
    recipe = recipes.absolute(load(name, overrides))
    chosen = any(override.startswith("data.source=") for override in overrides)
    data = sources.recognised_section(recipe.data, chosen=chosen)
    data = sources.recognised_sets(data)
    sources.check_recording(data, where=name)
    return recipe.model_copy(update={"data": data})


def parse(tree: dict[str, Any], *, where: str, training: bool = True) -> Recipe:
    """The recipe of a tree of plain values; see `check`."""
    return check(recipes.build(tree, where=where), where=where, training=training)


def check(recipe: Recipe, *, where: str, training: bool = True) -> Recipe:
    """The recipe itself, if its architecture, data form and protocol exist and fit together; else a `UsageError`.

    Keys that only training relates to each other may disagree where a recipe is read for its data or to be scored.
    """
    models.check(recipe.model, where=where)
    sources.check(recipe.data, where=where)
    sets = [each for each in recipe.data.sets if each.is_used]
    labels = [f"{where}: data.sets: '{each.name}'" for each in sets] or [where]
    for each, label in zip(data_sets.recipes_of(recipe), labels, strict=True):
        _check_set(each, where=label)
    if training:
        ranks = [each.overall for each in sets] or [True]
        for each, label, is_ranked in zip(data_sets.recipes_of(recipe), labels, ranks, strict=True):
            _check_set_to_train(each, where=label, is_ranked=is_ranked)
        for check_one in (_check_sets, _check_stages, _check_crops):
            check_one(data_sets.resolve(recipe), where=where)
    _check_canonical(data_sets.resolve(recipe), where=where)
    return recipe


def _check_set(recipe: Recipe, *, where: str) -> None:
    """The checks of a recipe of one data set."""
    protocols.check(recipe.eval.protocol, where=where)
    # Last: these look at several sections at once and may assume that all they name exists.
    protocols.check_kind(recipe, where=where)
    _check_passes(recipe, where=where)
    if recipe.loss.terms:
        from depthray import losses  # imports torch, as one's own terms do

        losses.check(recipe.loss, where=where)


def _check_set_to_train(recipe: Recipe, *, where: str, is_ranked: bool) -> None:
    """The checks of a recipe of one data set that only training needs."""
    if is_ranked:
        _check_monitor(recipe, where=where)
    _check_range(recipe, where=where)
    _check_shares(recipe, where=where)


def _check_sets(recipe: Recipe, *, where: str) -> None:
    """What several data sets, or epochs of a part of the frames, cannot be combined with."""
    several = len(data_sets.recipes_of(recipe)) > 1
    if not (several or recipe.data.epoch_frames):
        return
    key = "data.sets" if several else "data.epoch_frames"
    if recipe.data.order == "shards":
        raise UsageError(
            f"{where}: data.order=shards divides the shards of one data set, all of whose frames are in each epoch, "
            f"among workers; with {key} leave it out"
        )
    kinds = {each.depth_kind for each in data_sets.recipes_of(recipe)}
    if {"metric", "relative"} <= kinds and "depth" in recipe.data.targets:
        raise UsageError(
            f"{where}: data.sets: the loss of one set trains metres and that of another shares of the largest depth "
            "(loss.target=relative), which one network cannot both predict; give them one loss.target"
        )


def _check_canonical(recipe: Recipe, *, where: str) -> None:
    """A canonical camera is one of metres, and needs crops that keep the focal length to which frames are resized."""
    data = recipe.data
    if not data.canonical_focal:
        if recipe.model.rays:
            raise UsageError(
                f"{where}: model.rays is for networks of a canonical camera, which get the camera of each frame; give "
                "data.canonical_focal too"
            )
        return
    if "depth" not in data.targets or recipe.depth_kind != "metric":
        raise UsageError(
            f"{where}: data.canonical_focal={data.canonical_focal:g} is for networks that predict depth in metres; "
            "leave it out, or train metres"
        )
    if data.canonical == "none" and not recipe.model.rays:
        raise UsageError(
            f"{where}: with data.canonical=none only model.rays tells the network the camera of a frame; give "
            "model.rays=true too, or leave data.canonical out"
        )
    if data.resizes_to_focal and recipe.augment.crop_mode != "plain":
        raise UsageError(
            f"{where}: data.canonical=image trains on data.size pixels of frames of one focal length; give "
            f"augment.crop_mode=plain, not {recipe.augment.crop_mode}"
        )


def _check_passes(recipe: Recipe, *, where: str) -> None:
    try:
        Passes.of(recipe.eval).check(recipe.data, metric=recipe.depth_kind == "metric")
    except UsageError as error:
        raise UsageError(f"{where}: eval.{error}") from None


def _check_monitor(recipe: Recipe, *, where: str) -> None:
    """A run is ranked by a score of one of its targets; without this check that fails only after the first epoch."""
    section, targets = recipe.eval, ",".join(recipe.data.targets)
    protocol = protocols.named(section.protocol)
    scored = [name for name in protocol.scores(recipe.data.targets) if name in get_args(Monitor)]
    if "depth" in recipe.data.targets and protocol.usual and recipe.model.uncertainty != "none":
        scored.append("nll")
    if "depth" in recipe.data.targets and protocol.usual:
        scored += TEACHER_MONITORS  # whether the frames have labels is seen when they are opened
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
    """The truth may not be deeper than the network can predict."""
    if "depth" not in recipe.data.targets or recipe.loss.target == "relative":
        return
    if recipe.model.options.get("head") in UNBOUNDED:
        return
    farthest = _farthest(recipe)
    if farthest is not None and recipe.data.max_depth > farthest:
        raise UsageError(
            f"{where}: data.max_depth={recipe.data.max_depth:g} is beyond model.max_depth={farthest:g}, the farthest "
            f"that {recipe.model.name} is made for; give model.max_depth={recipe.data.max_depth:g} too, and an "
            f"eval.protocol of that range (now {recipe.eval.protocol})"
        )


def _farthest(recipe: Recipe) -> float | None:
    """Metres of model.max_depth, given or by default; None where the architecture has no such option.

    The default is looked up only where the data differ from theirs: that imports torch.
    """
    if recipe.data.max_depth <= Data.model_fields["max_depth"].default:
        given: float | None = recipe.model.options.get("max_depth")
        return given
    return _max_depth(recipe)


def _max_depth(recipe: Recipe) -> float | None:
    """model.max_depth, given or by default; None where the architecture has no such option."""
    if "max_depth" in recipe.model.options:
        return float(recipe.model.options["max_depth"])
    option = inspect.signature(models.builder(recipe.model.name)).parameters.get("max_depth")
    return None if option is None or option.default is option.empty else float(option.default)


def _check_shares(recipe: Recipe, *, where: str) -> None:
    """A network of shares of the largest depth ends at 1, and has nothing to do with metres that it is given."""
    if recipe.loss.target != "relative" or "depth" not in recipe.data.targets:
        return
    if "sparse" in recipe.data.inputs:
        raise UsageError(
            f"{where}: loss.target=relative: sparse depth among data.inputs is in metres, which shares of the largest "
            "depth are not; leave it out, or train metres"
        )
    farthest = _max_depth(recipe)
    if farthest is not None and farthest != 1:
        raise UsageError(
            f"{where}: loss.target=relative: the network predicts shares of each image's largest depth; give "
            f"model.max_depth=1 (now {farthest:g})"
        )


def _check_stages(recipe: Recipe, *, where: str) -> None:
    """Every stage of the weights of scales must be one that loss.multiscale can take."""
    # Found here, not at the epoch at which a stage begins.
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


def _check_crops(recipe: Recipe, *, where: str) -> None:
    """A network must be shown the same focal length in training as outside of it."""
    mode, fit = recipe.augment.crop_mode, recipe.data.fit
    if recipe.curriculum.scale_depth and mode != "resize":
        raise UsageError(
            f"{where}: curriculum.scale_depth is for frames that are resized; with augment.crop_mode={mode} a pixel "
            "shows as much at every size: leave it out"
        )
    if mode == "resize":
        if fit == "native":
            raise UsageError(
                f"{where}: data.fit=native shows complete frames at their own size, and augment.crop_mode=resize "
                "trains on them at another; give augment.crop_mode=plain, which trains on data.size pixels of them"
            )
        return
    fits = ("native",) if mode == "kb" else ("native", "aspect")
    if fit not in fits:
        raise UsageError(
            f"{where}: augment.crop_mode={mode} trains on data.size pixels of frames at the size at which they are "
            f"shown outside of training; give data.fit={' or '.join(fits)}, not {fit}"
        )
    if recipe.augment.crop < 1:
        raise UsageError(
            f"{where}: augment.crop={recipe.augment.crop:g} is the share of a crop that is resized; with "
            f"augment.crop_mode={mode} data.size is the crop: give augment.crop=1"
        )


def worker_counts(recipe: Recipe, *, least: int, most: int) -> list[int]:
    """The numbers of workers that the global batch divides by. Raises UsageError where `most` is not among them."""
    section = recipe.train
    check_batch_size(section.batch_size, workers=most, accumulate=section.accumulate, name=f"--workers {most}")
    if not 1 <= least <= most:
        raise UsageError(f"--min-workers {least} must be between 1 and --workers {most}")
    return [count for count in possible_workers(section.batch_size, section.accumulate) if least <= count <= most]
