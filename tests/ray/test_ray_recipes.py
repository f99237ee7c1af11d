"""Every recipe that is shipped trains on two Ray workers, on rendered rooms, and gives a scored checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from own_package import OWN as OWN_CODE
from own_package import forget, write_all, write_pairs

from depthray.checkpoints import select
from depthray.config import own_code, recipe
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


def short(recipe: Recipe) -> list[str]:
    """Overrides that keep each part of a recipe, one epoch of it."""
    stages = bool(recipe.curriculum.sizes or recipe.curriculum.scale_weights)
    overrides = [f"train.epochs={1 + stages}"]
    overrides += ["finetune.epochs=1"] if recipe.finetune.epochs else []
    overrides += ["curriculum.chunks=2", "curriculum.epochs_per_chunk=1"] if recipe.curriculum.chunks > 1 else []
    overrides += ["curriculum.sizes=[[32,32]]", "curriculum.epochs_per_size=1"] if recipe.curriculum.sizes else []
    return [*overrides, "curriculum.epochs_per_scale_weights=1"]


NAMES = [name for name in recipe.names() if name not in ("demo", *recipe.originals())]  # demo is trained elsewhere


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
@pytest.mark.parametrize("names", [NAMES, pytest.param(recipe.originals(), marks=pytest.mark.thorough)])
def test_every_recipe_trains_on_two_workers(
    cluster_address: str, tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one group of workers, one recipe after the other: most of the time of each would be the start of its group."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def work(given: dict[str, Any]) -> None:
        from cluster import workers

        for config in given["configs"]:
            workers._work(config, config["run"])

    made = {name: preflight.load(name, [*SMALL, *short(preflight.load(name)), *OWN.get(name, [])]) for name in names}
    forget(monkeypatch, tmp_path)
    write_all(tmp_path)
    data = write_pairs(tmp_path / "data", scenes=6)
    made["own code"] = preflight.load("demo", [*OWN_CODE, *SMALL[1:], f"data.root={data}", "train.epochs=1"])
    for name, each in made.items():
        run.prepare(tmp_path / name, each, resume=False)
    configs = [config(each, tmp_path / name) for name, each in made.items()]
    place = RunConfig(storage_path=str(tmp_path / "ray"))
    scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})
    TorchTrainer(work, train_loop_config={"configs": configs}, scaling_config=scaling, run_config=place).fit()
    for name, each in made.items():
        check(each, tmp_path / name)


def config(made: Recipe, folder: Path) -> dict[str, Any]:
    """What `cluster.workers._work` is given."""
    given = {"recipe": made.model_dump(mode="json"), "run": str(folder), "attempt": folder.name}
    return given | {"gpu": False, "cpus": 1, "code": own_code.share()}


def check(made: Recipe, folder: Path) -> None:
    _, scores = locate.summary(folder)
    assert math.isfinite(scores[made.eval.monitor]), folder.name
    last = select.committed(folder / "checkpoints")[-1]
    epochs = made.train.epochs + made.finetune.epochs
    assert json.loads((last / "manifest.json").read_text())["epoch"] == epochs, folder.name
