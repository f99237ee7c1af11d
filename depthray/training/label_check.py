"""Whether the frames of a recipe have what its loss learns from and its evaluation is ranked by: truth, or labels.

`depthray predict --as-labels` writes depth of 0 where a data set has none, so a few frames are read to find out.
"""

from __future__ import annotations

from collections.abc import Sequence

from depthray.config.sections import TEACHER_MONITORS, Loss, Recipe
from depthray.config.sections.loss_section import ALIGNED_TERMS
from depthray.data.mixing import data_sets
from depthray.data.mixing.joined_source import JoinedSource, Member
from depthray.data.source import RecordedSource
from depthray.errors import DataError, UsageError, count_of
from depthray.evaluation.protocols import MEANING
from depthray.losses.teacher import ADVICE
from depthray.training.frames import Frames

LOOKED_AT = 4  # frames of each side of a data set


def check_labels(frames: Frames) -> None:
    """Raise an error of the user where frames lack the depth, a teacher's or measured, that loss or monitor need."""
    recipe = frames.recipe
    if "depth" not in recipe.data.targets:
        return
    recipes, members = data_sets.recipes_of(recipe), _members(frames)
    pairs = list(zip(recipes, members, strict=True))
    taught = [each for each, _ in pairs if each.loss.teacher.weights]
    if taught and not any("teacher" in member.source.keys for each, member in pairs if each in taught):
        name = next(iter(taught[0].loss.teacher.weights))
        raise DataError(f"loss.teacher.{name}: no frame of {recipe.data.place} has the depth of a teacher; {ADVICE}")
    for each, member in pairs:
        _check_set(each, member)
        _check_kind(each, member)
    overall = [each.overall for each in recipe.data.sets] or [True]
    _check_monitor(recipe, [member for member, counts in zip(members, overall, strict=True) if counts])


def _members(frames: Frames) -> Sequence[Member]:
    if isinstance(frames.source, JoinedSource):
        return frames.source.members
    return [Member(frames.recipe.data.place, frames.source, frames.split)]


def _check_set(recipe: Recipe, member: Member) -> None:
    """A set must have something that its loss learns from."""
    is_labelled = "teacher" in member.source.keys
    if not recipe.loss.weights and not is_labelled:
        raise DataError(
            f"{member.name}: its loss has terms of loss.teacher alone, and its frames have no depth of a teacher; "
            f"{ADVICE}"
        )
    if is_labelled and not recipe.loss.teacher.weights and not _has_depth(member, member.split.train):
        raise DataError(
            f"{member.name}: its frames have labels of a teacher and no measured depth, and loss.teacher is not given; "
            "give e.g. loss.teacher.log_l1=1"
        )


def _check_kind(recipe: Recipe, member: Member) -> None:
    """Terms of a set must be of what the numbers of its labels are: metres, or depth up to scale and shift."""
    loss = recipe.loss
    if not loss.teacher.weights or not isinstance(member.source, RecordedSource) or "teacher" not in member.source.keys:
        return
    made_by = member.source.provenance().get("labelled_by", {})
    kind = made_by.get("depth_kind", "metric")
    if kind in ("metric", loss.target):
        return
    fault, advice = _misfit(loss, kind)
    if fault:
        raise UsageError(
            f"{member.name}: {fault} does not fit its labels, which are {MEANING[kind]} and not metres, by "
            f"'{made_by.get('name', '')}'; {advice}, or label by a teacher that predicts metres"
        )


def _misfit(loss: Loss, kind: str) -> tuple[str, str]:
    """The key that does not fit labels of a kind without metres, and what to give instead; none where all do."""
    space = "disparity" if kind == "affine-disparity" else "depth"
    if kind != "relative" and loss.ssi_space != space:
        return f"loss.ssi_space={loss.ssi_space}", f"give loss.ssi_space={space}"
    blind = [*ALIGNED_TERMS, *(["silog"] if kind == "relative" and loss.silog_lambda == 1 else [])]
    wrong = [f"loss.teacher.{name}" for name in loss.teacher.weights if name not in blind]
    return (wrong[0], f"give {' and '.join(f'loss.teacher.{name}' for name in blind)} alone") if wrong else ("", "")


def _check_monitor(recipe: Recipe, ranked: Sequence[Member]) -> None:
    """Checkpoints must be ranked by what the validation frames are scored against."""
    monitor, labelled = recipe.eval.monitor, [each for each in ranked if "teacher" in each.source.keys]
    if monitor in TEACHER_MONITORS:
        if not any(each.split.val for each in labelled):
            raise DataError(
                f"eval.monitor={monitor}: no validation frame of {', '.join(each.name for each in ranked)} has the "
                "depth of a teacher; choose another score, such as abs_rel"
            )
        return
    looked = [each for each in ranked if each.split.val]
    if labelled and looked and not any(_has_depth(each, each.split.val) for each in looked):
        raise UsageError(
            f"eval.monitor={monitor} is a score against measured depth, of which the "
            f"{count_of(len(looked) * LOOKED_AT, 'validation frame')} looked at have none; give eval.monitor="
            f"{TEACHER_MONITORS[0]}, or a data set with measured depth to validate on"
        )


def _has_depth(member: Member, side: Sequence[int]) -> bool:
    """Whether some frames of a side, spread over it, have measured depth; True of frames without a teacher's."""
    if "teacher" not in member.source.keys:
        return True
    count = min(LOOKED_AT, len(side))
    chosen = [int(side[number * len(side) // count]) for number in range(count)]
    return not chosen or any((member.source.read(index)["depth"] > 0).any() for index in chosen)
