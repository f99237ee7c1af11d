"""What a network was trained on and how good it is: `model.json` of a checkpoint, and a part of an export's.

What lies outside of the limits the network has not seen in training: `depthray.cards.outside` says so of an input.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from depthray.errors import CheckpointError
from depthray.storage.strict_json import to_json

NAME = "model.json"
FORMAT = 1
Span = tuple[float, float]  # lowest and highest
MeanAndEnds = tuple[float, float, float]  # of a score, and of its 95 % interval


@dataclass(frozen=True)
class TrainingData:
    """The frames that a network was trained on."""

    names: tuple[str, ...]  # of their publishers, or of the form they were read in
    frames: int
    scenes: int
    fingerprint: str
    licences: tuple[str, ...] = ()  # as far as they are known
    places: tuple[str, ...] = ()  # indoors, streets ...; empty where nobody said


@dataclass(frozen=True)
class TrainedLimits:
    """The lowest and highest of what a sample of the training frames was like."""

    measured: int  # frames in the sample
    width: Span  # pixels, of the photographs
    height: Span
    brightness: Span  # of the network's inputs, see depthray.cards.measured
    sharpness: Span
    focal: Span | None = None  # fx of the photographs in pixels; None where a camera is not known
    input_focal: Span | None = None  # the same in pixels of the network's inputs
    depth: Span | None = None  # metres; half of a per cent of the pixels is nearer, and as much farther


@dataclass(frozen=True)
class ProtocolScores:
    """Scores under one protocol."""

    protocol: str
    data: str
    split: str
    frames: int
    scenes: int
    metrics: dict[str, MeanAndEnds] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFacts:
    """What `model.json` says of a network."""

    data: TrainingData
    limits: TrainedLimits
    scores: tuple[ProtocolScores, ...] = ()  # the first are of validation, when it was saved
    robustness: dict[str, float] = field(default_factory=dict)  # by corruption: change of the score a strength
    confidence: dict[str, float] = field(default_factory=dict)  # how far its confidence holds

    def as_tree(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def render(facts: ModelFacts) -> bytes:
    """The bytes of model.json of a checkpoint."""
    return to_json({"format": FORMAT, **facts.as_tree()}, indent=1).encode() + b"\n"


def parse(data: bytes, *, where: Path) -> ModelFacts:
    """The facts whose bytes these are; CheckpointError if they are none."""
    try:
        tree = json.loads(data)
        if tree.pop("format") != FORMAT:
            raise CheckpointError(f"{where}: is of another version of depthray; use that, or another checkpoint")
        # Numbers of whoever wrote the file: each of its type, and finite.
        facts = _type().validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise CheckpointError(f"{where}: {key}: {error.errors()[0]['msg']}; use another checkpoint") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{where}: damaged; use another checkpoint") from None
    return facts


def finite(metrics: dict[str, MeanAndEnds]) -> dict[str, MeanAndEnds]:
    """The metrics that have a number."""
    return {name: value for name, value in metrics.items() if all(map(math.isfinite, value))}


@cache
def _type() -> TypeAdapter[ModelFacts]:
    return TypeAdapter(ModelFacts)
