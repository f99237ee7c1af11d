"""Which spaces are refused before the first trial, and that all others are accepted."""

from __future__ import annotations

import re

import pytest
import yaml

from depthray.config import recipe
from depthray.errors import UsageError
from depthray.training import preflight
from tuning.space import space, space_check
from tuning.space.dimension import Dimension
from tuning.space.space import Space


def parsed(text: str) -> Space:
    return space.parse(yaml.safe_load(text), where="mine")


def refusal(text: str, name: str = "demo", words: str = "") -> str:
    """The message for a space that does not fit a recipe; one line."""
    with pytest.raises(UsageError) as caught:
        space_check.check(parsed(text), preflight.load(name, words.split()), where="mine")
    assert str(caught.value).startswith("mine: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lrr: {uniform: [1, 2]}", "unknown key 'optim.lrr' (did you mean 'optim.lr'?)"),
        ("optm.lr: {uniform: [1, 2]}", "did you mean 'optim.lr'?"),
        ("lr: {uniform: [1, 2]}", "did you mean 'optim.lr'?"),
        ("nothing: {uniform: [1, 2]}", "unknown key 'nothing'"),
        ("points: [{optim.lrr: 1}]", "unknown key 'optim.lrr'"),
        ("optim: {uniform: [1, 2]}", "optim is a section; name a key of it, e.g. optim.name"),
        ("augment.hue: {uniform: [0, 0.7]}", "mine: augment.hue=0.7: input should be less than or equal to 0.5"),
        ("augment.hue: {choice: [0, 0.7, 0.1]}", "mine: augment.hue=0.7: input should be less than"),
        ("optim.lr: {uniform: [0, 1]}", "mine: optim.lr=0.0: input should be greater than 0"),
        ("augment.hue: {uniform: [0.1, 0.1]}", "augment.hue: the range 0.1 to 0.1 is empty"),
        ("augment.hue: {uniform: [0.2, 0.1]}", "the range 0.2 to 0.1 is empty; give the low end first"),
        ("loss.l1: {loguniform: [0, 1]}", "loguniform from 0.0 is impossible"),
        ("optim.warmup_steps: {logint: [0, 10]}", "logint from 0 is impossible"),
        ("augment.hue: {choice: []}", "the choice is empty"),
        ("augment.hue: {choice: [0.1]}", "a choice of one value; give two or more, or override augment.hue=0.1 on"),
        ("augment.hue: {choice: [0, 0.1, 0.0]}", "the choice has 0.0 twice"),
        ("optim.schedule: {choice: [constant, cosin]}", "did you mean 'cosine'?"),
        ("train.batch_size: {uniform: [8, 16]}", "write integer instead of uniform"),
        ("train.batch_size: {loguniform: [8, 16]}", "write logint instead of loguniform"),
        ("model.width: {integer: [8, 64]}", "unknown key 'model.width' (choose from: decoder, encoder"),
        ("model.encodr: {choice: [tiny, resnet18]}", "did you mean 'encoder'?"),
        ("model.encoder: {choice: [tiny, resnet19]}", "model.encoder='resnet19'"),
        ('model.weights: {choice: ["", no/such.pth]}', "model.weights=no/such.pth: no such file"),
        ("model.pretrained: {choice: [false, true]}", "no ImageNet weights for encoder 'tiny'"),
        ("model.name: {choice: [unet, dpt]}", "model.name=dpt: unknown key 'model.encoder'"),
        ("loss.mask_bce: {uniform: [0, 1]}", "loss.mask_bce needs 'mask' of the network, which predicts depth only"),
        ("loss.multiscale: {uniform: [0, 1]}", "loss.multiscale needs 'pyramid' of the network"),
        ("points: [{optim.lr: 1e-4}, {optim.lr: -1}]", "point 2 (optim.lr=-1) is refused: optim.lr=-1: input should"),
        ("points: [{optim.lr: 1e-4}, {}, {optim.lr: 0.0001}]", "point 3 is the same as point 1"),
    ],
)
def test_a_space_that_does_not_fit_the_recipe_is_refused_naming_key_and_value(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    "key",
    [
        *("about", "seed", "eval", "eval.protocol", "eval.monitor", "eval.batch_size", "data.split"),
        *("data.source", "data.root", "data.encoding", "data.targets", "data.min_depth", "data.max_depth"),
        *("data.sets", "data.sets.0.root", "data.sets.1.max_depth", "data.sets.1.overall", "data.epoch_frames"),
        *("data.val_fraction", "data.split_seed", "data.frames", "data.workers", "data.sparse", "data.sparse.samples"),
        *("train.epochs", "train.patience", "train.max_minutes", "train.max_bad_steps", "train.save_every_steps"),
        *("train.keep_best", "train.log_seconds", "finetune.epochs"),
    ],
)
def test_what_decides_frames_score_or_budget_is_not_searched(key: str) -> None:
    found = Space((Dimension(key, "integer", 1, 2),))
    with pytest.raises(UsageError, match=rf"^mine: {re.escape(key)} cannot be searched, since it ") as caught:
        space_check.check(found, preflight.load("demo"), where="mine")
    known = key in recipe.flatten(preflight.load("demo"))
    assert (f"override {key}=... on the command line" in str(caught.value)) == known
    with pytest.raises(UsageError, match="cannot be searched"):
        space_check.check(Space(points=({key: 1},)), preflight.load("demo"), where="mine")


def test_every_key_can_be_searched_or_is_refused_with_a_reason() -> None:
    searched = {
        "data": {"size", "inputs", "fit", "canonical_focal", "canonical"},
        "finetune": {"lr", "schedule"},
        "eval": set(),
        "": set(),
    }
    searched["train"] = {"batch_size", "accumulate", "precision", "channels_last", "compile"}
    searched["train"] |= {"sync_batchnorm", "freeze_batchnorm", "cuda_graph"}
    for key in recipe.flatten(preflight.load("demo")):
        section, _, name = key.rpartition(".")
        # What a device changes is equal to what a CPU does, but for rounding.
        free = name in searched.get(section, {name}) and not section.startswith("data.") and key != "augment.device"
        with pytest.raises(UsageError, match=r"the choice is empty|cannot be searched") as refused:
            space_check.check(Space((Dimension(key, "choice", values=()),)), preflight.load("demo"), where="mine")
        assert ("the choice is empty" in str(refused.value)) == free, key
        assert ("cannot be searched" in str(refused.value)) != free, key


def test_loss_weights_that_may_all_be_0_are_found_with_how_to_fix_it() -> None:
    both = "loss.l1: {choice: [0, 1]}\nloss.gradient: {choice: [0, 1]}"
    message = refusal(both)
    assert "its configuration loss.l1=0 loss.gradient=0 is refused: every loss weight is 0" in message
    assert "keep one of those above 0" in message
    assert "loss.l1=0.0: every loss weight is 0" in refusal("loss.l1: {uniform: [0, 1]}", words="loss.gradient=0")
    space_check.check(parsed(both), preflight.load("demo", ["loss.silog=0.1"]), where="mine")


def test_an_end_that_only_the_recipe_alone_refuses_is_taken() -> None:
    alone = preflight.load("demo", ["loss.gradient=0"])
    space_check.check(parsed("loss.l1: {uniform: [0, 1]}\nloss.silog: {uniform: [0.1, 1]}"), alone, where="mine")


def test_values_that_fit_one_by_one_but_not_together_are_found() -> None:
    text = "model.stacking: {choice: [inputs, original]}\ndata.inputs: {choice: [[image, sparse], [sparse]]}"
    message = refusal(text, "depthnet", "model.fill=blocks model.refine=none")
    assert (
        "its configuration model.stacking=original data.inputs=[sparse] is refused: model.stacking=original" in message
    )
    assert "narrow the range" in message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model.encoder: {choice: [tiny, resnet18]}\nmodel.max_depth: {choice: [10, 20]}", "demo"),
        ("model.decoder: {choice: [fixed, linear]}\noptim.average: {choice: [none, ema, swa]}", "unet-resnet34"),
        ("model.dropout: {choice: [0, 0.2]}\nloss.multiscale_norm: {choice: [l1, l2]}", "depthnet"),
        ("data.size: {choice: [[64, 64], [96, 128]]}\ntrain.batch_size: {logint: [8, 32]}", "demo"),
        ("curriculum.sizes: {choice: [[], [[64, 64]], [[32, 32], [64, 64]]]}", "demo"),
        ("data.inputs: {choice: [[image], [image, sparse]]}\nfinetune.lr: {loguniform: [1e-6, 1e-4]}", "demo"),
        ("loss.mask_dice: {uniform: [0, 1]}\nloss.mask_ssim: {uniform: [0, 1]}", "masknet"),
        ("points: [{}, {model.encoder: resnet18, optim.lr: 1e-3}, {optim.lr: 1e-3}]", "demo"),
    ],
)
def test_whatever_else_a_dotted_key_reaches_can_be_searched(text: str, name: str) -> None:
    space_check.check(parsed(text), preflight.load(name), where="mine")


SETS = "data.sets.0.root=/a/mine data.sets.1.root=/b/nyu data.sets.1.loss.ssi=1 data.sets.1.protocol=affine-disparity"


def test_weights_and_losses_of_data_sets_are_searched() -> None:
    text = "data.sets.1.weight: {uniform: [0.1, 0.5]}\ndata.sets.1.loss.ssi: {loguniform: [0.1, 1]}"
    space_check.check(parsed(text), preflight.load("demo", SETS.split()), where="mine")
    stages = "data.sets.1.weight: {choice: [[1, 0.5, 0], [1, 0]]}\ncurriculum.epochs_per_set_weight: {integer: [1, 4]}"
    space_check.check(parsed(stages), preflight.load("demo", SETS.split()), where="mine")
    aside = f"{SETS} data.sets.1.overall=false"
    space_check.check(
        parsed("data.sets.1.weight: {uniform: [0, 0.5]}"), preflight.load("demo", aside.split()), where="x"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data.sets.1.weight: {uniform: [0, 0.5]}", "data.sets.1.weight=0 leaves out the validation frames of 'nyu'"),
        ("data.sets.1.weight: {choice: [1, [0, 0]]}", "data.sets.1.weight=0 leaves out the validation frames of 'nyu'"),
        ("points: [{data.sets.0.weight: 0}]", "data.sets.0.weight=0 leaves out the validation frames of 'mine'"),
        ("data.sets.2.weight: {uniform: [0.1, 0.5]}", "unknown key 'data.sets.2.weight' (did you mean"),
        ("data.sets.1.wieght: {uniform: [0.1, 0.5]}", "did you mean 'data.sets.1.weight'?"),
    ],
)
def test_weights_that_change_which_frames_are_scored_are_refused(text: str, message: str) -> None:
    assert message in refusal(text, words=SETS)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("dpt-vits", "optim.encoder_lr=1 model.weights=no.pth", ""),
        ("masknet", "optim.encoder_lr=0.1", "optim.encoder_lr=0.1: this architecture has no encoder"),
        ("demo", "model.name=masknet data.inputs=image", "unknown key 'model.encoder'"),
        ("unet-resnet34", "loss.mask_bce=1", "the baseline recipe cannot be trained: loss.mask_bce needs 'mask'"),
        ("depthnet", "loss.multiscale_weights=1,1 curriculum.scale_weights=[]", "the network predicts 5 scales"),
    ],
)
def test_a_recipe_that_would_end_at_its_first_step_is_found(name: str, words: str, message: str) -> None:
    text = "optim.lr: {loguniform: [1e-4, 1e-3]}"
    try:
        space_check.check(parsed(text), preflight.load(name, words.split()), where="mine")
        found = ""
    except UsageError as error:
        found = str(error)
    assert message in found and bool(message) == bool(found)
