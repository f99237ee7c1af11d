"""Steps whose numbers are read after the next one is queued, as on a GPU, against steps that are read at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from depthray.config.sections import Recipe
from depthray.errors import DivergedError
from depthray.training import loop, preflight
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, SavePoint, fit
from depthray.training.state import Hooks, State, begin
from depthray.training.step import Stepper
from depthray.training.steps.kept_buffers import KeptBuffers
from depthray.training.steps.objective import Objective

CPU = torch.device("cpu")
SMALL = [
    *("data.size=32,64", "data.frames=24", "train.batch_size=4", "train.epochs=1", "train.precision=fp32"),
    *("model.encoder=timm/test_efficientnet", "train.log_seconds=0.001", "augment.rotate=0"),  # with batch norm
]


def small(*overrides: str) -> Recipe:
    return preflight.load("demo", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.open(small())


def poison(state: State, bad: Callable[[int], bool]) -> None:
    """Make the network, and its statistics, NaN in the steps that `bad` names."""
    forward, calls = state.model.forward, iter(range(10**6))

    def broken(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if state.model.training and bad(next(calls)):
            batch = {**batch, "image": batch["image"] * math.nan}
        prediction: dict[str, torch.Tensor] = forward(batch)
        return prediction

    state.model.forward = broken


def trained(recipe: Recipe, frames: Frames, *, late: bool, bad: Callable[[int], bool]) -> tuple[State, list[Epoch]]:
    state = begin(recipe, CPU)
    poison(state, bad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Stepper", partial(Stepper, late=late))
        epochs = [event for event in fit(recipe, state, frames) if isinstance(event, Epoch)]
    return state, epochs


@pytest.mark.parametrize(
    "words",
    [
        ["optim.name=adamw", "optim.average=ema", "optim.clip_norm=1"],
        ["optim.name=sgd", "optim.lr=1e-2", "optim.average=swa", "optim.swa_start=0", "optim.swa_batchnorm=averaged"],
    ],
)
def test_late_steps_train_to_the_same_weights(frames: Frames, words: list[str]) -> None:
    recipe = small(*words)
    at_once, late = (trained(recipe, frames, late=late, bad=lambda call: call in (0, 3)) for late in (False, True))
    assert late[0].position.bad_steps == 2
    for name in ("step", "good_steps", "bad_steps", "bad_in_row"):
        assert getattr(late[0].position, name) == getattr(at_once[0].position, name), name
    for of_late, of_others in zip(late[1], at_once[1], strict=True):
        assert of_late.metrics["train_loss"] == pytest.approx(of_others.metrics["train_loss"], rel=1e-5)
    for model in ("model", "predictor"):
        for key, value in getattr(at_once[0], model).state_dict().items():
            torch.testing.assert_close(getattr(late[0], model).state_dict()[key], value, rtol=1e-4, atol=1e-5, msg=key)
    if late[0].average is not None and at_once[0].average is not None:
        assert late[0].average.count == at_once[0].average.count


@pytest.mark.parametrize("name", ["adam", "adan", "sgd"])
def test_a_skipped_late_step_leaves_no_trace(frames: Frames, name: str) -> None:
    recipe = small(f"optim.name={name}", "optim.average=ema", "optim.weight_decay=0.1")
    state = begin(recipe, CPU)
    before = {key: value.clone() for key, value in state.predictor.state_dict().items()}
    poison(state, lambda call: True)
    stepper = Stepper(recipe, state, Objective(recipe, state), steps_per_epoch=9, late=True)
    batches = frames.train_epoch(0)
    assert stepper.step(next(batches), 1e-3) == []
    assert [math.isnan(result.loss) for result in stepper.step(next(batches), 1e-3)] == [True]
    for model in (state.model, state.average.averaged):
        assert [key for key in before if not torch.equal(model.state_dict()[key], before[key])] == []
    assert state.position.bad_steps == 1
    stepper.settle()
    assert state.position.bad_steps == 2 and stepper.settle() == []


def test_divergence_names_the_samples_of_its_own_step(frames: Frames) -> None:
    recipe = small("train.max_bad_steps=2")
    first = [batch[0]["id"] for batch in frames.train_epoch(0)]
    with pytest.raises(DivergedError, match="2 steps in a row, last at step 2") as caught:
        trained(recipe, frames, late=True, bad=lambda call: call in (1, 2))  # step 3 is good, and already queued
    assert all(name in str(caught.value) for name in first[2])
    assert not any(name in str(caught.value) for name in first[3])


def test_a_stop_is_noticed_a_step_late_and_counts_all_steps(frames: Frames) -> None:
    recipe = small("train.save_every_steps=0")
    state = begin(recipe, CPU)
    state.hooks = Hooks(stop_requested=lambda: state.position.step >= 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Stepper", partial(Stepper, late=True))
        events = list(fit(recipe, state, frames))
    assert isinstance(events[-1], SavePoint)
    assert state.position.step == state.position.good_steps == 3  # asked for within step 1, read after step 2


@pytest.mark.parametrize("skip", [True, torch.tensor(True), False, torch.tensor(False)])
def test_buffers_are_restored_where_a_step_is_skipped(skip: bool | torch.Tensor) -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(4))
    model.register_buffer("wide", torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last))
    model.register_buffer("precise", torch.rand(7, dtype=torch.float64))
    kept, buffers = KeptBuffers(model), list(model.buffers())
    before = [each.clone() for each in buffers]
    kept.keep()
    for each in buffers:
        each.fill_(math.nan if each.is_floating_point() else 9)
    kept.restore(skip)
    assert [torch.equal(each, old) for each, old in zip(buffers, before, strict=True)] == [bool(skip)] * len(buffers)
