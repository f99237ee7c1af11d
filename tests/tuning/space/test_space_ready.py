"""The spaces that come with depthray: each fits the recipes it is for, and agrees with its comment."""

from __future__ import annotations

import re
import shlex

import pytest

from depthray.config import recipe
from depthray.config.sections import Augment
from depthray.errors import UsageError
from depthray.training import preflight
from tuning.command import build_parser
from tuning.space import space, space_check
from tuning.space.dimension import overrides

OF_DEPTH = [name for name in recipe.names() if "depth" in preflight.load(name).data.targets]
OF_BIFPN = ["bifpn-efficientnet-b0", "original/bifpn-efficientnet-b0"]
OTHERS = [name for name in recipe.names() if name not in OF_DEPTH]
AUGMENTATIONS = ("augmentation", "more-augmentation")
# Where all fits, so do its parts: each of their values is tried alone, and several together (see the test below).
FITS = {"all": OF_DEPTH, "learning-rate": OTHERS, "augmentation": OTHERS, "more-augmentation": ["demo", *OTHERS]}
READY = [*((name, each) for name, fits in FITS.items() for each in fits), *(("seed-003", each) for each in OF_BIFPN)]
ALWAYS = ("demo", "depthmasknet", "depthnet", "masknet", "unet-lite")  # the others take seconds each
FITTING = [pytest.param(*pair, marks=() if pair[1] in ALWAYS else pytest.mark.thorough) for pair in READY]


@pytest.mark.parametrize(("name", "of"), FITTING)
def test_a_ready_space_fits_the_recipes_it_is_for(name: str, of: str) -> None:
    space_check.check(space.read(name), preflight.load(of), where=name)


@pytest.mark.parametrize("name", ["loss-weights", "all"])
def test_a_space_of_depth_losses_is_refused_where_masks_alone_are_trained(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: loss.l1 needs 'depth' of the network"):
        space_check.check(space.read(name), preflight.load("masknet"), where=name)


def test_all_is_the_other_three_together() -> None:
    parts = (space.read(name).dimensions for name in ("learning-rate", "augmentation", "loss-weights"))
    assert space.read("all").dimensions == tuple(dimension for part in parts for dimension in part)


@pytest.mark.parametrize("name", recipe.names())
def test_the_learning_rates_reach_well_beyond_each_recipes_own(name: str) -> None:
    (rates,) = space.read("learning-rate").dimensions
    own = preflight.load(name).optim.lr
    assert 3 * rates.low < own < rates.high / 3


def test_each_augmentation_can_be_switched_off_and_each_recipes_strength_is_within() -> None:
    dimensions = [dimension for name in AUGMENTATIONS for dimension in space.read(name).dimensions]
    choices = {dimension.key.removeprefix("augment."): dimension.values for dimension in dimensions}
    off = Augment(hflip=0)
    for key, values in choices.items():
        assert getattr(off, key) in values, key
        for name in recipe.names():
            assert min(values) <= getattr(preflight.load(name).augment, key) <= max(values), (key, name)


def test_loss_weights_never_are_all_0_whatever_the_recipe() -> None:
    ranges = {dimension.key: dimension for dimension in space.read("loss-weights").dimensions}
    assert ranges["loss.l1"].low > 0
    assert all(each.low == 0 for key, each in ranges.items() if key != "loss.l1")


def test_seed_003_is_its_published_sweep() -> None:
    found = space.read("seed-003")
    made = [preflight.load(OF_BIFPN[0], overrides(point)) for point in found.points]
    assert [(each.optim.lr, each.augment.hflip) for each in made] == [(2e-4, 0.5), (2e-3, 0.5), (8e-3, 0.5), (2e-3, 0)]
    assert {each.augment.model_copy(update={"hflip": 0}) for each in made} == {Augment(hflip=0)}
    scores = {note["name"]: (note["reference"]["mse"], note["reference"]["ssim"]) for note in found.notes}
    assert scores == {
        "low": (0.014762, 0.74564),
        "mid": (0.014269, 0.77537),
        "high": (0.016139, 0.75254),
        "no augmentation": (0.015202, 0.76762),
    }


@pytest.mark.parametrize("name", space.names())
def test_a_ready_space_opens_with_commands_that_it_fits_and_its_number_of_trials(name: str) -> None:
    lines = (space.SPACES / f"{name}.yaml").read_text().splitlines()
    comment = [line.removeprefix("#").strip() for line in lines[: next(i for i, x in enumerate(lines) if x[0] != "#")]]
    commands = [shlex.split(line) for line in comment if line.startswith("depthray tune ")]
    assert commands and re.search(r"\d+ (to \d+ )?trials", " ".join(comment))
    for _, _, *rest in commands:
        asked = build_parser().parse_intermixed_args(rest)
        assert asked.space == name
        loaded = preflight.load(asked.recipe, asked.overrides)
        assert (asked.grace or 0) <= loaded.train.epochs + loaded.finetune.epochs
        space_check.check(space.read(name), loaded, where=name)


def test_seed_003_is_scored_as_its_references_are_and_fits_its_own_regime() -> None:
    text = (space.SPACES / "seed-003.yaml").read_text()
    loaded = preflight.load("original/bifpn-efficientnet-b0")
    assert "depthray tune original/bifpn-efficientnet-b0 --space seed-003" in text
    assert (loaded.eval.protocol, loaded.eval.monitor) == ("legacy-003", "mse")
    assert (loaded.loss.weights, loaded.data.size, loaded.model.options["head"]) == ({"l2": 1.0}, (224, 224), "relu6")
    space_check.check(space.read("seed-003"), loaded, where="seed-003")
