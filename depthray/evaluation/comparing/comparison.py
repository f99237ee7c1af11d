"""Checkpoints and exports scored on the same frames under one protocol, each in pairs with one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from depthray.config.sections import Data, Recipe
from depthray.data import split
from depthray.data.mixing import data_sets
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.errors import UsageError, count_of
from depthray.evaluation.comparing.paired import FrameScores, MetricDifference, compare
from depthray.evaluation.evaluate import evaluate_frames
from depthray.evaluation.metrics import RANGES
from depthray.evaluation.report import Evaluation
from depthray.runtimes.open import open_model

# What says which frames are scored; all else of a recipe's data is how its network sees them.
OF_FRAMES = ("source", "root", "encoding", "frames", "sets")
OF_SCORES = (*OF_FRAMES, "intrinsics", "min_depth", "max_depth", "val_fraction", "split_seed")


class Candidate(NamedTuple):
    """A checkpoint or an export that is compared."""

    name: str  # as its user calls it
    path: Path
    recipe: Recipe  # its own


@dataclass(frozen=True)
class CandidateScores:
    """What a candidate scored on a data set, and how that differs from the baseline."""

    name: str
    frames: FrameScores
    overall: tuple[MetricDifference, ...]  # without a difference for the baseline itself
    ranges: Mapping[str, tuple[MetricDifference, ...]]  # by range of true depth, of RANGES
    trained_on: int  # of the scored frames, as far as its recipe tells


@dataclass(frozen=True)
class ComparedSet:
    """A data set with the scores of all candidates, that of the baseline first."""

    about: Mapping[str, str]
    protocol: str
    scores: tuple[CandidateScores, ...]

    @property
    def warnings(self) -> list[str]:
        """What makes a score better than it would be on frames that a network has not seen."""
        count = len(self.scores[0].frames.ids)
        return [
            f"{each.name} was trained on {each.trained_on} of these {count_of(count, 'frame')}"
            for each in self.scores
            if each.trained_on
        ]


@dataclass(frozen=True)
class Comparison:
    """Candidates compared with a baseline, the first of them, on one or more data sets."""

    names: tuple[str, ...]
    monitor: str
    sets: tuple[ComparedSet, ...]


def compare_candidates(
    candidates: Sequence[Candidate],
    frames: Sequence[Recipe],
    *,
    side: str,
    device: torch.device,
    trust: bool = False,
) -> Comparison:
    """Compare candidates with the first of them on the frames that recipes of it name, one a data set.

    Each network sees the frames at its own size and with its own inputs. Raises UsageError where a candidate's frames
    are not those of the baseline.
    """
    sets = [_compare_on(candidates, recipe, side=side, device=device, trust=trust) for recipe in frames]
    return Comparison(tuple(each.name for each in candidates), frames[0].eval.monitor, tuple(sets))


def recipe_on(own: Recipe, frames: Recipe) -> Recipe:
    """A candidate's recipe, to score it on the frames and under the protocol of another."""
    # What a network predicts is decided by the losses of its own sets, not by those of the sets that it is scored on.
    own = data_sets.without_sets(own)
    values = {key: getattr(frames.data, key) for key in OF_SCORES}
    values["sets"] = tuple(each.model_copy(update={"loss": None}) for each in frames.data.sets)
    return own.model_copy(update={"data": own.data.model_copy(update=values), "eval": frames.eval})


def _compare_on(
    candidates: Sequence[Candidate], frames: Recipe, *, side: str, device: torch.device, trust: bool
) -> ComparedSet:
    first: Evaluation | None = None
    scores: list[CandidateScores] = []
    for candidate in candidates:
        recipe = recipe_on(candidate.recipe, frames)
        source = open_source(recipe.data)
        opened = open_model(candidate.path, device=device, trust=trust)
        evaluation = evaluate_frames(opened, candidate.path, recipe, source, side=side, device=device)
        first = first or evaluation
        _check_same(first, evaluation, candidate)
        scores.append(_score(candidate, evaluation, first, source, frames))
    assert first is not None  # there are candidates
    return ComparedSet(first.about, frames.eval.protocol, tuple(scores))


def _check_same(first: Evaluation, evaluation: Evaluation, candidate: Candidate) -> None:
    if evaluation.about["data_fingerprint"] != first.about["data_fingerprint"]:
        raise UsageError(
            f"{candidate.name}: its frames are not those of the baseline, although they come from the same place: "
            "rendered rooms are drawn at data.size; write them once with `depthray data render` and give --data"
        )
    if evaluation.names != first.names:
        raise UsageError(
            f"{candidate.name}: predicts {', '.join(candidate.recipe.data.targets)}, which the baseline does not; "
            "compare networks with the same data.targets"
        )


def _score(
    candidate: Candidate, evaluation: Evaluation, first: Evaluation, source: Source, frames: Recipe
) -> CandidateScores:
    monitor, is_baseline = frames.eval.monitor, evaluation is first
    scores = FrameScores.of(evaluation, monitor)
    return CandidateScores(
        candidate.name,
        scores,
        tuple(compare(None if is_baseline else FrameScores.of(first, monitor), scores)),
        {
            name: _compare_range(evaluation, None if is_baseline else first, monitor, number)
            for number, name in enumerate(RANGES)
            if number and evaluation.has_depth
        },
        _count_trained_on(candidate.recipe.data, frames.data, source, evaluation),
    )


def _compare_range(
    evaluation: Evaluation, first: Evaluation | None, monitor: str, number: int
) -> tuple[MetricDifference, ...]:
    before = FrameScores.of_range(first, monitor, number) if first else None
    return tuple(compare(before, FrameScores.of_range(evaluation, monitor, number)))


def _count_trained_on(own: Data, frames: Data, source: Source, evaluation: Evaluation) -> int:
    """How many of the scored frames a network was trained on, where its recipe names the same data set."""
    if any(getattr(own, key) != getattr(frames, key) for key in OF_FRAMES):
        return 0
    seen = split.side(source.frames, own, "train")
    return sum(row.index in seen for row in evaluation.rows)
