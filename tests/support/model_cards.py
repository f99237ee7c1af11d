"""Facts of a network for tests, and checkpoints that have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from depthray.checkpoints import load, save
from depthray.checkpoints.model_facts import ModelFacts, ProtocolScores, TrainedLimits, TrainingData

DATA = TrainingData(("nyu",), 716, 400, "f" * 64, ("none stated",), ("indoors",))
LIMITS = TrainedLimits(
    measured=32,
    width=(640.0, 640.0),
    height=(480.0, 480.0),
    brightness=(0.2, 0.7),
    sharpness=(0.1, 0.5),
    focal=(519.0, 519.0),
    input_focal=(259.5, 259.5),
    depth=(0.7, 9.0),
)
FACTS = ModelFacts(DATA, LIMITS, (ProtocolScores("plain", "", "val", 79, 40, {"abs_rel": (0.176, 0.15, 0.2)}),))


def with_facts(checkpoint: Path, facts: ModelFacts = FACTS) -> Path:
    """A copy of a checkpoint beside it, which is a later save, with facts."""
    return save.write(checkpoint.parent, replace(load.load(checkpoint, state=True), facts=facts))
