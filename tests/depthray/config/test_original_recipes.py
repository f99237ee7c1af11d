"""Each seed system's recipe as published: the numbers of its regime, its network's size, and that it can be trained."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from depthray import models
from depthray.__main__ import main
from depthray.config import recipe as recipes
from depthray.config.sections import Augment, Recipe
from depthray.errors import UsageError
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import fit
from depthray.training.schedule import learning_rate
from depthray.training.state import begin

SGD = {
    **{"optim.name": "sgd", "optim.lr": 0.1, "optim.momentum": 0.9, "optim.weight_decay": 1e-8},
    **{"optim.schedule": "plateau", "optim.step_factor": 0.1, "optim.plateau_patience": 2, "optim.clip_norm": 0},
    **{"train.epochs": 12, "train.batch_size": 128, "data.size": [224, 224]},
    **{"curriculum.sizes": [[64, 64], [128, 128]], "curriculum.epochs_per_size": 3},
}
REGIMES: dict[str, dict[str, Any]] = {
    "depthnet": {
        **{"model.stacking": "original", "model.norm": "none", "model.head": "none", "model.dropout": 0.2},
        **{"data.size": [256, 256], "train.epochs": 300, "train.batch_size": 4, "curriculum.scale_weights": []},
        **{"optim.name": "adam", "optim.lr": 1e-4, "optim.weight_decay": 1e-4, "optim.clip_norm": 1.0},
        **{"optim.schedule": "cosine", "optim.min_lr": 1e-6},
        "loss.multiscale_relative": False,
    },
    "unet-resnet34": {
        **{"model.encoder": "resnet34", "model.decoder": "linear", "model.weights": "imagenet"},
        **{"data.size": [320, 320], "train.epochs": 50, "train.batch_size": 16},
        **{"optim.name": "adam", "optim.lr": 1e-4, "optim.weight_decay": 1e-4, "optim.schedule": "constant"},
        **{"finetune.epochs": 50, "finetune.lr": 1e-5, "finetune.schedule": "cosine", "optim.min_lr": 1e-7},
        **{"curriculum.chunks": 10, "curriculum.epochs_per_chunk": 5, "curriculum.order": "random"},
        **{"optim.clip_norm": 0, "eval.protocol": "legacy-001"},
    },
    "fpn-resnet101": {
        **{"model.encoder": "resnet101", "model.head": "relu", "model.normalise": "none"},
        **{"data.size": [480, 640], "train.epochs": 50, "train.batch_size": 4, "model.weights": "imagenet"},
        **{"optim.name": "adam", "optim.lr": 1e-3, "optim.weight_decay": 4e-5, "optim.schedule": "step"},
        **{"optim.step_epochs": 1, "optim.step_factor": 0.9, "optim.clip_norm": 0},
    },
    "bifpn-efficientnet-b0": {
        **{"model.fusion": "constant", "model.head": "relu6", "model.normalise": "none", "model.max_depth": 1},
        **{"data.size": [224, 224], "train.epochs": 15, "train.batch_size": 32, "train.precision": "fp16"},
        **{"optim.name": "adan", "optim.lr": 2e-3, "optim.weight_decay": 1e-4, "optim.schedule": "constant"},
        **{"optim.clip_norm": 0.5, "train.patience": 4, "train.min_delta": 1e-3, "loss.target": "relative"},
        **{"eval.protocol": "legacy-003", "eval.monitor": "mse", "data.val_fraction": 0.3, "model.weights": "imagenet"},
    },
    "masknet": {**SGD, "data.targets": ["mask"]},
    "depthmasknet": {**SGD, "model.wiring": "code", "eval.protocol": "legacy-004"},
}
TERMS: dict[str, dict[str, float]] = {
    "depthnet": {"multiscale": 1},
    "unet-resnet34": {"l1": 1, "gradient": 0.5},
    "fpn-resnet101": {"log_rmse": 1},
    "bifpn-efficientnet-b0": {"l2": 1},
    "masknet": {"mask_bce": 1},
    "depthmasknet": {"mask_bce": 1, "rmse": 0.2},  # BCE + 2 RMSE of shares of 10 m
}
CHANGES: dict[str, dict[str, float]] = {  # augmentation; what is not named does nothing
    "depthnet": {"hflip": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0.1},
    "unet-resnet34": {"hflip": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    "fpn-resnet101": {},
    "bifpn-efficientnet-b0": {"hflip": 0.5},
    "masknet": {},
    "depthmasknet": {},
}
PARAMETERS = {
    "depthnet": 7_929_221,
    "unet-resnet34": 23_644_737,  # those that are used
    "fpn-resnet101": 45_402_561,
    "bifpn-efficientnet-b0": 7_426_409,  # without the unused classifier
    "masknet": 76_097,
    "depthmasknet": 7_083_874,
}
NAMES = sorted(REGIMES)


def original(name: str, *overrides: str) -> Recipe:
    return preflight.load(f"original/{name}", overrides)


def test_every_seed_has_one_beside_its_ordinary_recipe() -> None:
    assert recipes.originals() == [f"original/{name}" for name in NAMES]
    assert set(NAMES) <= set(recipes.names())


def test_the_command_lists_and_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "list"]) == 0
    assert set(recipes.originals()) <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert main(["recipe", "show", "original/bifpn-efficientnet-b0"]) == 0
    assert "target: relative" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"no recipe 'original/unet-resnet43' \(did you mean 'original/unet-resnet34'"):
        preflight.load("original/unet-resnet43")


@pytest.mark.parametrize("name", NAMES)
def test_an_ordinary_recipe_points_to_the_original(name: str) -> None:
    header = (recipes.RECIPES / f"{name}.yaml").read_text(encoding="utf-8").split("\nabout:")[0]
    assert f"depthray train original/{name}" in header


@pytest.mark.parametrize("name", NAMES)
def test_the_regime_is_the_published_one(name: str) -> None:
    values = recipes.flatten(original(name))
    assert {key: values.get(key) for key in REGIMES[name]} == REGIMES[name]
    assert original(name).loss.weights == TERMS[name]
    unusual = {"optim.warmup_steps": 0, "optim.average": "none", "optim.encoder_lr": 1, "train.accumulate": 1}
    assert {key: values[key] for key in unusual} == unusual


@pytest.mark.parametrize("name", NAMES)
def test_no_augmentation_that_the_seed_did_not_have(name: str) -> None:
    still = Augment(hflip=0.0).model_dump()
    assert original(name).augment.model_dump() == still | CHANGES[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_network_has_the_size_of_the_seeds(name: str) -> None:
    made = original(name)
    with torch.device("meta"):
        network = models.build_model(made.model, made.data.inputs)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


def test_the_rate_of_seed_002_drops_at_each_epoch_but_the_first_two() -> None:
    made = original("fpn-resnet101")
    rates = [learning_rate(made, epoch * 7, steps_per_epoch=7) / 1e-3 for epoch in range(4)]
    assert rates == pytest.approx([1, 1, 0.9, 0.81])


def test_the_second_phase_of_seed_001_ends_at_its_lowest_rate() -> None:
    made = original("unet-resnet34")
    rates = [learning_rate(made, step, steps_per_epoch=10) for step in (0, 499, 500, 999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-7], rel=1e-3)


SMALL = [
    *("data.source=synthetic", "data.frames=8", "data.size=64,64", "data.val_fraction=0.5", "model.weights=''"),
    *("train.epochs=1", "train.batch_size=2", "train.precision=fp32", "finetune.epochs=0"),
    *("curriculum.chunks=1", "curriculum.sizes=[]"),
]


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_at_a_small_size(name: str) -> None:
    made = original(name, *SMALL)
    state = begin(made, torch.device("cpu"))
    before = {key: value.clone() for key, value in state.model.named_parameters()}
    (*_, epoch) = fit(made, state, Frames.open(made))
    assert state.position.step == 2 and state.position.bad_steps == 0
    assert math.isfinite(epoch.metrics["train_loss"]) and math.isfinite(epoch.metrics[made.eval.monitor])
    moved = [key for key, value in state.model.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.9 * len(before)
