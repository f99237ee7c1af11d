"""Every recipe that is shipped trains on two Ray workers, on rendered rooms, and gives a scored checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import kills
import pytest

from depthray import checkpoint, recipe, run
from depthray.sections import Recipe

SMALL = ["data.source=synthetic", "data.frames=16", "data.size=64,64", "data.val_fraction=0.25", "train.batch_size=4"]
OWN = {"dpt-vits": ["model.size=tiny"]}


def short(made: Recipe) -> list[str]:
    """Words that keep each part of a recipe, one epoch of it."""
    stages = bool(made.curriculum.sizes or made.curriculum.scale_weights)
    words = [f"train.epochs={1 + stages}"]
    words += ["finetune.epochs=1"] if made.finetune.epochs else []
    words += ["curriculum.chunks=2", "curriculum.epochs_per_chunk=1"] if made.curriculum.chunks > 1 else []
    words += ["curriculum.sizes=[[32,32]]", "curriculum.epochs_per_size=1"] if made.curriculum.sizes else []
    return [*words, "curriculum.epochs_per_scale_weights=1"]


@pytest.mark.parametrize("name", [name for name in recipe.names() if name != "demo"])  # the demo is trained elsewhere
def test_every_recipe_trains_on_two_workers(name: str, cluster_address: str, tmp_path: Path) -> None:
    flags = ("--address", cluster_address, "--workers", "2", "--cpus-per-worker", "1")
    words = [*SMALL, *short(recipe.load(name)), *OWN.get(name, [])]
    kills.finish(kills.start(tmp_path / "run", *flags, words=[name, *words]))
    _, scores = run.summary(tmp_path / "run")
    made = recipe.load(name, words)
    assert scores[made.eval.monitor] == scores[made.eval.monitor]
    last = checkpoint.committed(tmp_path / "run" / "checkpoints")[-1]
    epochs = made.train.epochs + made.finetune.epochs
    assert json.loads((last / "manifest.json").read_text())["epoch"] == epochs
