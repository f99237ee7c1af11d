"""Every recipe that is shipped trains on two Ray workers, on rendered rooms, and gives a scored checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import kills
import pytest

from depthray import recipe, run

SMALL = [
    *("data.source=synthetic", "data.frames=16", "data.size=64,64", "data.val_fraction=0.25"),
    *("train.epochs=1", "train.batch_size=4", "finetune.epochs=0", "curriculum.chunks=1", "curriculum.sizes=[]"),
]


@pytest.mark.parametrize("name", [name for name in recipe.names() if name != "demo"])  # the demo is trained elsewhere
def test_every_recipe_trains_on_two_workers(name: str, cluster_address: str, tmp_path: Path) -> None:
    flags = ("--address", cluster_address, "--workers", "2", "--cpus-per-worker", "1")
    kills.finish(kills.start(tmp_path / "run", *flags, words=[name, *SMALL]))
    best, scores = run.summary(tmp_path / "run")
    monitor = recipe.load(name).eval.monitor
    assert scores[monitor] == scores[monitor]
    assert json.loads((best / "manifest.json").read_text())["epoch"] == 1
