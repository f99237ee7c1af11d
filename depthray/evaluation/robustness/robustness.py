"""A network's scores as frames get worse: of each corruption and strength, against the same frames as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from depthray.batch import Batch, Sample
from depthray.config.metric_names import rank_key
from depthray.config.sections import Recipe
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.source import Frame, Source
from depthray.data.sources import open_source
from depthray.errors import UsageError
from depthray.evaluation import protocols
from depthray.evaluation.comparing.comparison import Candidate, recipe_on
from depthray.evaluation.comparing.paired import FrameScores, MetricDifference, compare
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.robustness import consistency
from depthray.evaluation.robustness.consistency import CropChange, Flicker
from depthray.evaluation.robustness.corruptions import DROPOUT, STRENGTHS, corrupted, drop_samples
from depthray.runtimes.open import OpenedModel, open_model
from depthray.runtimes.passes import Passes

CROP = "crop"  # no corruption: predictions are compared with each other
WORST = 3  # frames that are named
WORST_AT = 3  # the strength at which they are looked for


class CorruptedSource:
    """A source each of whose samples is corrupted. See `depthray.data.source.Source`."""

    def __init__(self, source: Source, corruption: str, strength: int) -> None:
        self._source, self._corruption, self._strength = source, corruption, strength

    @property
    def frames(self) -> Sequence[Frame]:
        """Those of the source."""
        return self._source.frames

    @property
    def keys(self) -> frozenset[str]:
        """Those of the source."""
        return self._source.keys

    @property
    def fingerprint(self) -> str:
        """That of the source: nothing is trained on corrupted frames."""
        return self._source.fingerprint

    def read(self, index: int) -> Sample:
        """A frame, corrupted."""
        return corrupted(self._source.read(index), self._corruption, self._strength, index=index)

    def faults(self, index: int) -> list[str]:
        """Those of the source."""
        return self._source.faults(index)


class WorstFrame(NamedTuple):
    """A frame that a corruption harms most."""

    id: str
    before: float
    after: float


@dataclass(frozen=True)
class CorruptionScores:
    """Scores of a network under one corruption."""

    corruption: str
    by_strength: tuple[tuple[MetricDifference, ...], ...]  # one a strength, each metric against frames as they are
    slope: float  # of the monitored metric, as a share of its value on frames as they are, a strength
    worst: tuple[WorstFrame, ...]


@dataclass(frozen=True)
class NetworkRobustness:
    """What a network scores on frames as they are, and under each corruption."""

    name: str
    clean: tuple[MetricDifference, ...]
    corruptions: tuple[CorruptionScores, ...]
    crops: tuple[CropChange, ...] = ()
    flicker: Flicker | None = None
    left_out: str = ""  # what of what was asked for is nothing for this network, and why


@dataclass(frozen=True)
class RobustnessReport:
    """Networks on the same frames under the same corruptions."""

    about: dict[str, str]
    monitor: str
    networks: tuple[NetworkRobustness, ...]


class Clip(NamedTuple):
    """A video on which flicker is measured."""

    path: Path
    most: int  # of its first frames


def measure(
    candidates: Sequence[Candidate],
    frames: Recipe,
    corruptions: Sequence[str],
    *,
    side: str,
    most: int,
    device: torch.device,
    trust: bool = False,
    say: Callable[[str], None] = lambda _: None,
    clip: Clip | None = None,
) -> RobustnessReport:
    """Score networks on frames as they are and under corruptions, of at most `most` frames spread over those there are.

    `frames` is the recipe that says which frames and which protocol. CROP among the corruptions compares depth of
    parts of the frames with that of the whole, for networks that see photographs alone; a clip shows their flicker.
    """
    networks: list[NetworkRobustness] = []
    count = 0
    for candidate in candidates:
        recipe = recipe_on(candidate.recipe, frames)
        source = open_source(recipe.data)
        chosen = _spread(split.side(source.frames, recipe.data, side), most)
        opened = open_model(candidate.path, device=device, trust=trust)
        score = _scorer(opened, recipe, chosen, device)
        clean, count = score(source), len(chosen)
        sees_all = consistency.sees_photographs_alone(recipe)
        _check_can_be_measured(candidate, recipe, corruptions, clip)
        names = [name for name in corruptions if name != CROP and not _reason_against(name, recipe)]
        scored = []
        for name in names:
            say(f"{candidate.name}: {name}")
            scored.append(_under(name, clean, (score(source, name, strength) for strength in STRENGTHS), frames))
        measured: dict[str, Any] = {}
        if CROP in corruptions and not sees_all:
            measured["left_out"] = f"{CROP} is left out: {_reads(recipe)}"
        if sees_all and (clip or CROP in corruptions):
            depth = consistency.depth_of(opened, recipe, device)
            if CROP in corruptions:
                say(f"{candidate.name}: {CROP}")
                measured["crops"] = consistency.crops(depth, ((index, source.read(index)["image"]) for index in chosen))
            if clip:
                say(f"{candidate.name}: {clip.path.name}")
                pictures = consistency.clip_frames(*clip)
                measured["flicker"] = consistency.flicker(depth, pictures, name=str(clip.path))
        networks.append(NetworkRobustness(candidate.name, tuple(compare(None, clean)), tuple(scored), **measured))
    about = {"data": frames.data.place, "split": side, "frames": str(count)}
    about |= {"clip": clip.path.name} if clip else {}
    return RobustnessReport(about | {"protocol": frames.eval.protocol}, frames.eval.monitor, tuple(networks))


def _check_can_be_measured(candidate: Candidate, recipe: Recipe, corruptions: Sequence[str], clip: Clip | None) -> None:
    """Raise UsageError where a clip, or all that was asked for, is nothing for this network."""
    if clip and not consistency.sees_photographs_alone(recipe):
        raise UsageError(f"{candidate.name}: a clip has photographs alone, and {_reads(recipe)}")
    if corruptions and all(_reason_against(name, recipe) for name in corruptions):
        raise UsageError(f"{candidate.name}: {corruptions[0]} {_reason_against(corruptions[0], recipe)}")


def _reason_against(name: str, recipe: Recipe) -> str:
    """Why a corruption is nothing for a network; "" where it can be measured."""
    if name == CROP and not consistency.sees_photographs_alone(recipe):
        return f"is of photographs alone, and {_reads(recipe)}"
    if name == DROPOUT and "sparse" not in recipe.data.inputs:
        return f"is of sparse depth, and {_reads(recipe)}"
    return ""


def _reads(recipe: Recipe) -> str:
    camera = " and needs the camera of each" if recipe.data.canonical_focal else ""
    return f"this network reads {', '.join(recipe.data.inputs)}{camera}"


def _scorer(
    opened: OpenedModel, recipe: Recipe, chosen: Sequence[int], device: torch.device
) -> Callable[..., FrameScores]:
    protocol, passes = protocols.of(recipe), Passes.of(recipe.eval)
    passes.check(recipe.data, metric=recipe.depth_kind == "metric")

    def score(source: Source, corruption: str = "", strength: int = 0) -> FrameScores:
        if corruption and corruption != DROPOUT:
            source = CorruptedSource(source, corruption, strength)
        batches: Iterable[tuple[list[int], Batch]] = eval_batches(
            source, chosen, passes.enlarged(recipe.data), batch_size=recipe.eval.batch_size
        )
        if corruption == DROPOUT:
            batches = ((indices, drop_samples(indices, batch, strength)) for indices, batch in batches)
        evaluation = evaluate(opened.network, batches, protocol=protocol, device=device, passes=passes)
        return FrameScores.of(evaluation, recipe.eval.monitor)

    return score


def _under(name: str, clean: FrameScores, scored: Iterator[FrameScores], frames: Recipe) -> CorruptionScores:
    each = list(scored)
    monitor = frames.eval.monitor if frames.eval.monitor in clean.names else clean.names[0]
    before = clean.means()[monitor]
    changes = np.array([0.0, *(scores.means()[monitor] - before for scores in each)])
    steps = np.arange(len(changes))
    slope = float((steps @ changes) / (steps @ steps) / before) if before else 0.0  # through frames as they are
    return CorruptionScores(
        name,
        tuple(tuple(compare(clean, scores)) for scores in each),
        slope,
        tuple(_worst(clean, each[WORST_AT - 1], monitor)),
    )


def _worst(clean: FrameScores, scores: FrameScores, monitor: str) -> list[WorstFrame]:
    column = clean.names.index(monitor)
    pairs = zip(clean.ids, clean.table[:, column].tolist(), scores.table[:, column].tolist(), strict=True)
    found = [WorstFrame(*pair) for pair in pairs if np.isfinite(pair[1:]).all()]
    # rank_key is lower where better.
    return sorted(found, key=lambda frame: rank_key(monitor, frame.before) - rank_key(monitor, frame.after))[:WORST]


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """At most so many of the indices, evenly spread."""
    if len(indices) <= most:
        return list(indices)
    return [indices[place] for place in np.linspace(0, len(indices) - 1, most).round().astype(int)]
