"""Every recipe that is shipped trains in two processes, on rendered rooms, and gives a scored checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from process_groups import launch

from depthray.checkpoints import select
from depthray.config import recipe
from depthray.config.sections import Recipe
from depthray.runs import locate, run
from depthray.training import preflight

SMALL = ["data.source=synthetic", "data.frames=12", "data.size=64,64", "data.val_fraction=0.25", "train.batch_size=4"]
# The larger networks are the same code at greater width or depth.
OWN = {
    "bifpn-efficientnet-b0": ["model.encoder=efficientnet_lite0"],
    "dpt-vits": ["model.size=tiny"],
    "dpt-vits-lora": ["model.size=tiny"],
    "fpn-resnet101": ["model.encoder=resnet18"],
    "unet-resnet34": ["model.encoder=resnet18"],
}
# As each of Ray's workers trains (cluster/workers.py): the runs are prepared, and the processes in a group.
TRAIN = """
import json, sys
from depthray import distributed
from depthray.config.sections import Recipe
from depthray.runs.run import record
device = distributed.start(gpu=False)
for folder, recipe in json.loads(sys.argv[1]).items():
    for _ in record(Recipe.model_validate(recipe), folder, device):
        pass
distributed.stop()
"""


def short(recipe: Recipe) -> list[str]:
    """Overrides that keep each part of a recipe, one epoch of it."""
    stages = bool(recipe.curriculum.sizes or recipe.curriculum.scale_weights)
    overrides = [f"train.epochs={1 + stages}"]
    overrides += ["finetune.epochs=1"] if recipe.finetune.epochs else []
    overrides += ["curriculum.chunks=2", "curriculum.epochs_per_chunk=1"] if recipe.curriculum.chunks > 1 else []
    overrides += ["curriculum.sizes=[[32,32]]", "curriculum.epochs_per_size=1"] if recipe.curriculum.sizes else []
    return [*overrides, "curriculum.epochs_per_scale_weights=1"]


NAMES = [name for name in recipe.names() if name not in ("demo", *recipe.originals())]  # demo is trained elsewhere


@pytest.mark.parametrize("names", [NAMES, pytest.param(recipe.originals(), marks=pytest.mark.thorough)])
def test_every_recipe_trains_in_two_processes(tmp_path: Path, names: list[str]) -> None:
    """In one group, one recipe after the other."""
    made = {name: preflight.load(name, [*SMALL, *short(preflight.load(name)), *OWN.get(name, [])]) for name in names}
    for name, each in made.items():
        run.prepare(tmp_path / name, each, resume=False)
    given = {str(tmp_path / name): each.model_dump(mode="json") for name, each in made.items()}
    launch(TRAIN, 2, json.dumps(given))
    for name, each in made.items():
        check(each, tmp_path / name)


def check(made: Recipe, folder: Path) -> None:
    _, scores = locate.summary(folder)
    assert math.isfinite(scores[made.eval.monitor]), folder.name
    last = select.committed(folder / "checkpoints")[-1]
    epochs = made.train.epochs + made.finetune.epochs
    assert json.loads((last / "manifest.json").read_text())["epoch"] == epochs, folder.name
