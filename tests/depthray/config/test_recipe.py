"""Recipes: what is accepted, what is refused with which message, and that every shipped one is complete."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import yaml

from depthray import losses
from depthray.cli.recipe import commented
from depthray.config import recipe
from depthray.config.sections import LOSS_OPTIONS, MASK_MONITORS, Loss, Monitor, Recipe
from depthray.errors import UsageError
from depthray.evaluation.mask_metrics import MASK_METRICS
from depthray.evaluation.metrics import METRICS
from depthray.evaluation.protocols import PROTOCOLS
from depthray.training import preflight


@pytest.mark.parametrize("name", recipe.names())
def test_shipped_recipes_load_and_survive_a_round_trip(name: str) -> None:
    loaded = preflight.load(name)
    assert preflight.parse(yaml.safe_load(recipe.dump(loaded)), where=name) == loaded


def test_overrides_win_over_the_file_with_typed_values() -> None:
    loaded = preflight.load(
        "unet-resnet34", ["optim.lr=3e-4", "data.size=96,128", "model.encoder=resnet18", "data.inputs=[image]"]
    )
    assert loaded.optim.lr == 3e-4
    assert loaded.data.size == (96, 128)
    assert loaded.model.options["encoder"] == "resnet18"
    assert loaded.data.inputs == ("image",)


def test_an_override_without_a_value_is_an_empty_text() -> None:
    assert preflight.load("unet-lite").model.weights == "imagenet?"
    assert preflight.load("unet-lite", ["model.weights="]).model.weights == ""
    with pytest.raises(UsageError, match=r"optim\.lr='': input should be a valid number"):
        preflight.load("unet-lite", ["optim.lr="])


def test_overrides_reach_a_section_inside_a_section_and_lists_of_lists() -> None:
    overrides = [
        "data.sparse.samples=5",
        "curriculum.sizes=[[64,64],[128, 96]]",
        "curriculum.scale_weights=[[0,1],[1,1]]",
    ]
    scales = ["loss.multiscale=1", "loss.multiscale_weights=1,1"]
    loaded = preflight.load("unet-resnet34", [*overrides, *scales, "data.sparse.pattern=grid"])
    assert (loaded.data.sparse.samples, loaded.data.sparse.pattern) == (5, "grid")
    assert loaded.curriculum.sizes == ((64, 64), (128, 96))
    assert loaded.curriculum.scale_weights == ((0.0, 1.0), (1.0, 1.0))
    assert recipe.flatten(loaded)["data.sparse.samples"] == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ("optm.lr=1", "unknown key 'optm' (did you mean 'optim'?)"),
        ("optim.schedule=cosin", "did you mean 'cosine'?"),
        ("model.encodr=resnet18", "unknown key 'model.encodr' (did you mean 'encoder'?)"),
        ("model.encoder=resnet35", "model.encoder='resnet35'"),
        ("model.name=unets", "no architecture 'unets' (did you mean 'unet'?)"),
        ("train.batch_size=0", "train.batch_size=0"),
        ("train.epochs=three", "train.epochs='three'"),
        ("optim.lr=-1", "optim.lr=-1"),
        ("optim.lr=nan", "optim.lr"),
        ("data.encoding=uint16_m", "uint16_mm"),
        ("data.source=shard", "did you mean 'shards'?"),
        ("eval.protocol=nyu-bt", "nyu-bts"),
        ("loss.l1=0 loss.gradient=0", "every loss weight is 0"),
        ("data.min_depth=11", "data.min_depth must be below data.max_depth"),
        ("nonsense", "'nonsense' is neither a flag nor an override"),
        ("seed.x=1", "'seed' is a value, not a section"),
        ("data.sparse.sample=5", "unknown key 'data.sparse.sample' (did you mean 'samples'?)"),
        ("data.sparse.pattern=lidar", "did you mean 'lidar"),
        ("data.sparse=5", "data.sparse=5"),
        ("curriculum.sizes=[[64,0]]", "curriculum.sizes[0][1]=0"),
        ("curriculum.sizes=64,64", "curriculum.sizes[0]=64"),
        ("curriculum.sizes=64", "curriculum.sizes[0]=64"),
        ("data.size=64", "data.size=64: input should be a valid tuple"),
        ("data.inputs=depht", "data.inputs has unknown 'depht'"),
        ("data.inputs=image,image", "data.inputs names 'image' twice"),
        ("data.targets=depth,depth", "data.targets names 'depth' twice"),
        ("data.inputs=image,mask data.targets=depth,mask", "'mask' is in data.inputs and data.targets"),
        ("eval.protocol=legacy-003", "with data.targets=depth; choose from: ssim, mse"),
        ("eval.protocol=legacy-001", "choose from: mae"),
        ("eval.protocol=legacy-004", "scores depth and mask, but data.targets is depth; choose another protocol"),
        ("eval.protocol=legacy-004 data.targets=depth,mask", "choose from: soft_iou"),
        ("eval.monitor=ssim", "eval.monitor=ssim is not scored by eval.protocol=plain with data.targets=depth"),
        ("eval.monitor=iou", "choose from: abs_rel"),
        ("data.targets=mask", "choose from: iou, dice, boundary_f1"),
        ("data.max_depth=80", "data.max_depth=80 is beyond model.max_depth=10"),
        ("data.max_depth=80", "model.max_depth=80 too, and an eval.protocol of that range (now plain)"),
        ("model.max_depth=8", "data.max_depth=10 is beyond model.max_depth=8"),
        ("data.fit=native", "augment.crop_mode=resize trains on them at another; give augment.crop_mode=plain"),
        ("augment.crop_mode=plain augment.crop=1", "give data.fit=native or aspect, not exact"),
        ("augment.crop_mode=kb augment.crop=1 data.fit=aspect", "give data.fit=native, not aspect"),
        ("augment.crop_mode=plain data.fit=native", "augment.crop=0.9 is the share of a crop that is resized"),
        ("curriculum.scale_weights=[[1,1,1,1,1]]", "weights of loss.multiscale, which is 0"),
        ("loss.multiscale=1 curriculum.scale_weights=[[1,1,1,1,1],[1,1]]", "scale_weights.1 are 2 weights; give 5"),
        ("loss.multiscale=1 curriculum.scale_weights=[[0,0,0,0,0]]", "scale_weights.0 are all 0; give 5"),
    ],
)
def test_a_wrong_override_is_one_line_naming_the_key(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        preflight.load("unet-resnet34", ["seed=1", *override.split()])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "data.max_depth=80 model.max_depth=80 eval.protocol=kitti-garg",
        "data.max_depth=5",
        "data.max_depth=80 data.targets=mask eval.monitor=iou",
        "eval.protocol=legacy-003 eval.monitor=mse",
        "eval.protocol=plain-ssim eval.monitor=ssim",
        "eval.protocol=legacy-004 data.targets=depth,mask eval.monitor=soft_iou",
        "data.targets=depth,mask eval.monitor=delta3",
        "augment.crop_mode=plain augment.crop=1 data.fit=aspect",
        "augment.crop_mode=kb augment.crop=1 data.fit=native data.size=352,704",
        "loss.multiscale=1 curriculum.scale_weights=[[0,0,0,0,1]]",
    ],
)
def test_keys_that_fit_each_other_are_accepted(override: str) -> None:
    assert preflight.load("unet-resnet34", override.split()).seed == 0


@pytest.mark.parametrize(
    ("override", "is_read"),
    [
        ("data.inputs=sparse", lambda loaded: loaded.data.inputs == ("sparse",)),
        ("data.targets=depth", lambda loaded: loaded.data.targets == ("depth",)),
        ("loss.multiscale_weights=1", lambda loaded: loaded.loss.multiscale_weights == (1.0,)),
    ],
)
def test_a_single_value_is_a_list_of_one(tmp_path: Path, override: str, is_read: Callable[[Recipe], bool]) -> None:
    assert is_read(preflight.load("unet-resnet34", [override]))
    key, value = override.split("=")
    section, name = key.split(".")
    (tmp_path / "mine.yaml").write_text(f"{section}: {{{name}: {value}, {'l1: 1' if section == 'loss' else ''}}}\n")
    assert is_read(preflight.load(str(tmp_path / "mine.yaml")))


@pytest.mark.parametrize("override", ["data.max_depth=80", "eval.protocol=legacy-003", "data.targets=mask"])
def test_what_only_training_relates_may_disagree_to_score_or_to_read(override: str) -> None:
    assert preflight.load("unet-resnet34", [override], training=False) != preflight.load("unet-resnet34")


def test_checking_a_recipe_does_not_wait_for_torch() -> None:
    look = "sys.exit('torch' in sys.modules)"
    code = f"import sys; from depthray.training import preflight; preflight.load('masknet'); {look}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_depth_score_can_be_monitored_and_the_names_of_masks_are_those_scored() -> None:
    assert set(METRICS) < set(get_args(Monitor)) and MASK_MONITORS == MASK_METRICS
    assert {name for protocol in PROTOCOLS.values() for name in protocol.own} >= {"ssim", "mse", "soft_iou"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "given twice"),
        ("optim: {lr: 1, lr: 2}\n", "given twice"),
        ("seed: !!python/object/apply:os.getcwd []\n", "not a readable YAML file"),
        ("- 1\n- 2\n", "a recipe is a mapping"),
        ("seed: [\n", "not a readable YAML file"),
        ("optim: 3\n", "optim=3"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"mine\.yaml") as caught:
        preflight.load(str(path))
    assert message in str(caught.value)


def test_shown_recipe_has_a_comment_on_each_key_and_reads_back(tmp_path: Path) -> None:
    loaded = preflight.load(
        "unet-resnet34", ["optim.lr=3e-4", "data.sparse.samples=7", "curriculum.sizes=[[64,64],[96,96]]"]
    )
    lines = list(commented(loaded))
    assert all("#" in line for line in lines), [line for line in lines if "#" not in line]
    path = tmp_path / "shown.yaml"
    path.write_text("\n".join(lines))
    assert any(line.startswith("    samples: 7 ") for line in lines)
    shown, given = recipe.flatten(preflight.load(str(path))), recipe.flatten(loaded)
    assert given.items() <= shown.items()


def test_every_loss_weight_names_a_function() -> None:
    weights = set(Loss.model_fields) - set(LOSS_OPTIONS)
    assert weights == set(losses.TERMS)
