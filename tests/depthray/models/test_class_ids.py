"""Class ids that a network has no channel for are refused, not taken for others."""

import pytest
import torch

from depthray import models
from depthray.config.sections import Model
from depthray.errors import DataError
from depthray.models.layers.inputs import InputStack
from depthray.training.frames import Frames
from depthray.training.loop import fit
from depthray.training.preflight import load
from depthray.training.state import begin

CPU = torch.device("cpu")


def make(name, **options):
    with torch.device("meta"):
        return models.build_model(Model(name=name, **options), ("background", "image", "semantics"))


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("number", [-1, 7, 5000])
def test_class_ids_that_look_alike_are_refused(name, number):
    model = make(name)
    batch = {"semantics": torch.full((2, 1, 4, 4), number), "id": ["a", "b"]}
    batch["semantics"][0] = 0
    if number < 5000:
        models.check_ids(model, batch)
        return
    with pytest.raises(DataError, match=r"sample 'b': class id 5000 is out of range: this network has 10\d\d classes"):
        models.check_ids(model, batch)


def test_one_hot_ids_are_bounded_by_their_number():
    batch = {"semantics": torch.full((1, 1, 4, 4), 41)}
    with pytest.raises(DataError, match=r"class id 41 .*41 classes \(0 to 40\).*model.classes=42"):
        models.check_ids(make("depthnet", semantics="onehot"), batch)
    models.check_ids(make("depthnet", semantics="onehot", classes=42), batch)
    models.check_ids(make("depthnet", stacking="original"), batch)  # reads no classes


def test_ids_below_0_are_one_unknown_class():
    stack = InputStack(("semantics",), max_depth=10.0)
    seen = {number: stack({"semantics": torch.full((1, 1, 1, 1), number)}).flatten() for number in (-2, -1, 1022, 0)}
    assert torch.equal(seen[-1], seen[-2])
    assert not any(torch.equal(seen[-1], seen[number]) for number in (0, 1022))


def test_training_stops_naming_the_sample():
    overrides = ["model={name: depthnet, semantics: onehot, classes: 2}", "data.inputs=[image,semantics]"]
    made = load("demo", [*overrides, "data.size=32,64", "data.frames=12", "train.batch_size=4", "train.precision=fp32"])
    with pytest.raises(DataError, match=r"sample '.*': class id \d+ is out of range: .* has 2 classes \(0 to 1\)"):
        list(fit(made, begin(made, CPU), Frames.open(made)))
