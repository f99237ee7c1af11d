"""Depth completion scored against the number of sparse samples that the network is given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depthray import distributed
from depthray.batch import Batch
from depthray.config import own_code
from depthray.config.sections import Recipe
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.mixing import data_sets
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.errors import UsageError
from depthray.evaluation import protocols
from depthray.evaluation.completion.fills import JointBilateralFill, SpreadSamples
from depthray.evaluation.completion.regions import NAMES, with_regions
from depthray.evaluation.described_data import network_size
from depthray.evaluation.evaluate import Batches, evaluate
from depthray.evaluation.protocols import Protocol
from depthray.runtimes.open import open_model
from depthray.runtimes.passes import Passes

COUNTED = ("exact", "bernoulli", "grid", "features")  # patterns in which data.sparse.samples is the number of samples


@dataclass(frozen=True)
class CompletionPoint:
    """The scores with one number of samples."""

    samples: int  # requested
    given: float  # mean over frames; less than `samples` where fewer pixels are measured
    frames: int
    scores: dict[str, dict[str, float]]  # metric -> mean, low, high
    spread: dict[str, float]  # metric -> mean of `SpreadSamples`
    bilateral: dict[str, float]  # metric -> mean of `JointBilateralFill`; none of a network without an image


@dataclass(frozen=True)
class CompletionCurve:
    """Scores against the number of samples, and what was scored. A pattern without a number of them has one point."""

    about: dict[str, Any]
    points: Sequence[CompletionPoint]

    @property
    def names(self) -> list[str]:
        """The metrics."""
        return [name for name in self.points[0].scores if name not in NAMES]

    @property
    def counted(self) -> bool:
        """Whether the number of samples means anything."""
        return str(self.about["pattern"]) in COUNTED


def check(recipe: Recipe, *, where: str) -> None:
    """Refuse a recipe for which the number of samples has no meaning."""
    if "sparse" not in recipe.data.inputs:
        raise UsageError(
            f"{where}: its inputs are {', '.join(recipe.data.inputs)}; an error against the number of samples takes a "
            "checkpoint trained with 'sparse' among data.inputs, such as data.inputs=[image,sparse]"
        )
    if "depth" not in recipe.data.targets:
        raise UsageError(f"{where}: it was trained to predict {', '.join(recipe.data.targets)}, not depth")


def completion_curve(
    path: Path, recipe: Recipe, samples: Sequence[int], *, side: str, device: torch.device, trust: bool = False
) -> CompletionCurve:
    """Score one side of a recipe's data with a checkpoint or an export, once for each number of samples."""
    model = open_model(path, device=device, trust=trust).network.eval().to(memory_format=torch.channels_last)
    source = open_source(recipe.data)
    chosen = split.side(source.frames, recipe.data, side)  # the same frames for every number of samples
    # Of a sensor's pattern all that matters is whether there is any.
    numbers = sorted(set(samples)) if recipe.data.sparse.pattern in COUNTED else [1]
    points = [_score_point(model, with_samples(recipe, number), source, chosen, device=device) for number in numbers]
    return CompletionCurve(_about(path, recipe, side=side, fingerprint=source.fingerprint), points)


def with_samples(recipe: Recipe, number: int) -> Recipe:
    """The recipe with another number of samples."""
    sparse = recipe.data.sparse.model_copy(update={"samples": number})
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"sparse": sparse})})


def _score_point(
    model: nn.Module, recipe: Recipe, source: Source, chosen: Sequence[int], *, device: torch.device
) -> CompletionPoint:
    def batches() -> Batches:
        rank, world_size, size = distributed.rank(), distributed.world_size(), recipe.eval.batch_size
        data = protocols.scored_data(recipe)
        return eval_batches(source, chosen, data, batch_size=size, rank=rank, world_size=world_size)

    counts: dict[int, float] = {}
    usual = protocols.of(recipe)
    protocol = _with_regions(usual)
    counted, passes = _count_samples(batches(), counts), Passes.of(recipe.eval)
    evaluation = evaluate(model, counted, protocol=protocol, device=device, passes=passes)
    # The batches anew, for a generator gives them once; evaluation draws the same samples each time.
    spread = evaluate(SpreadSamples(), batches(), protocol=protocol, device=device)
    bilateral = (
        evaluate(JointBilateralFill(), batches(), protocol=protocol, device=device).scores()
        if "image" in recipe.data.inputs
        else {}
    )
    # Processes may share a frame, and floats are not associative: one count a frame, in the order of the frames.
    given = dict(sorted(distributed.gather(list(counts.items()))))
    return CompletionPoint(
        samples=int(recipe.data.sparse.samples),  # type: ignore[arg-type]
        given=math.fsum(given.values()) / len(given),
        frames=len(evaluation.rows),
        scores=evaluation.summary()["overall"],
        spread=spread.scores(),
        bilateral=bilateral,
    )


def _with_regions(protocol: Protocol) -> Protocol:
    """The protocol, and those of its data sets, with scores by region."""
    sets = tuple(each._replace(protocol=_with_regions(each.protocol)) for each in protocol.sets)
    return replace(protocol, extra=with_regions(protocol.extra), own=(*protocol.own, *NAMES), sets=sets)


def _count_samples(batches: Batches, counts: dict[int, float]) -> Iterator[tuple[list[int], Batch]]:
    """The same batches; the number of samples of each frame is added to `counts` by the frame's index."""
    for indices, batch in batches:
        counts.update(zip(indices, (batch["sparse"] > 0).sum(dim=(1, 2, 3)).tolist(), strict=True))
        yield indices, batch


def _about(path: Path, recipe: Recipe, *, side: str, fingerprint: str) -> dict[str, Any]:
    data = data_sets.resolve(recipe).data
    form = f" ({own_code.short_name(data.source)})" if data.root else ""
    return {
        "checkpoint": str(path),
        "protocol": protocols.of(recipe).name,
        "data": f"{data.place}{form}",
        "data_fingerprint": fingerprint,
        "split": side,
        "network_size": network_size(data),
        "pattern": data.sparse.pattern,
        "noise": data.sparse.noise,
        "errors": data.sparse.errors,
    }
