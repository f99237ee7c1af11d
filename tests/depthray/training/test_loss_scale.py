"""fp16: what overflows is skipped and counted apart while its scale is found, and ends the run where no scale helps."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from depthray.checkpoints.load import CheckpointContents
from depthray.config.sections import Recipe
from depthray.errors import DivergedError
from depthray.runs import console
from depthray.runtimes.precision import Precision
from depthray.training import preflight, step
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, fit
from depthray.training.state import State, begin, restore

CPU = torch.device("cpu")
SMALL = ["data.size=32,64", "data.frames=40", "train.batch_size=4", "train.epochs=2", "optim.average=ema"]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return preflight.load("demo", [*SMALL, "train.max_bad_steps=2"])


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe may not ask for fp16 on a CPU, where it only costs time; the arithmetic is that of a GPU."""
    monkeypatch.setattr(Precision, "of", staticmethod(lambda name, device, **_: Precision(device, torch.float16)))


def scaled(recipe: Recipe, scale: float) -> State:
    state = begin(recipe, CPU)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return state


@pytest.mark.usefixtures("half")
def test_gradients_that_no_scale_makes_finite_end_the_run(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "MOST_OVERFLOWS", 5)
    state = scaled(recipe, 2.0**4)
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    for parameter in state.model.parameters():
        parameter.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(DivergedError, match="the loss or its gradient was not finite for 2 steps in a row"):
        list(fit(recipe, state, Frames.open(recipe)))
    at = state.position
    assert (at.good_steps, at.bad_steps, at.overflow_steps) == (0, 2, 5)
    assert state.scaler.get_scale() == 2.0**-3  # lowered by each of them
    assert state.average is not None and state.average.count == 0
    assert all(torch.equal(one, two) for one, two in zip(before, state.model.parameters(), strict=True))


@pytest.mark.usefixtures("half")
def test_overflows_while_the_scale_is_found_are_counted_apart(recipe: Recipe) -> None:
    state = scaled(recipe, 2.0**22)
    before = {key: value.clone() for key, value in state.model.state_dict().items()}
    epochs = [event for event in fit(recipe, state, Frames.open(recipe)) if isinstance(event, Epoch)]
    at = state.position
    steps = {int(each["step"]) for each in state.optimiser.state.values()}
    assert at.overflow_steps > 0 and steps == {at.step - at.overflow_steps}
    assert at.bad_steps == 0 and state.average is not None and state.average.count == max(steps)
    assert math.isfinite(epochs[-1].metrics["train_loss"]) and epochs[-1].metrics["bad_steps"] == 0
    assert any(not torch.equal(before[key], value) for key, value in state.model.state_dict().items())


def test_a_run_resumes_on_a_gpu_of_another_kind(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale of a loss is there in fp16 alone, and hardware decides the format of `auto`."""
    formats: Iterator[torch.dtype] = iter([torch.bfloat16, torch.float16, torch.float16, torch.float32])
    monkeypatch.setattr(Precision, "of", staticmethod(lambda name, device, **_: Precision(device, next(formats))))
    ampere = saved(begin(recipe, CPU))
    volta = restore(ampere, recipe, CPU)
    assert volta.scaler.is_enabled() and volta.scaler.get_scale() == 2.0**16
    volta.scaler.load_state_dict({**volta.scaler.state_dict(), "scale": 512.0})
    again = restore(saved(volta), recipe, CPU)
    assert again.scaler.get_scale() == 512.0
    assert not restore(saved(again), recipe, CPU).scaler.is_enabled()


def saved(state: State) -> CheckpointContents:
    """What a checkpoint file gives back."""
    file = io.BytesIO()
    contents = state.contents({}, fingerprint="")
    torch.save(contents.state, file)
    file.seek(0)
    return replace(contents, state=torch.load(file, weights_only=True))


def test_overflows_are_on_the_progress_line() -> None:
    record = dict.fromkeys(
        ("epoch", "epochs", "step", "steps", "lr", "images_per_second", "wait_share", "memory_gib", "eta_seconds"), 1
    )
    line = console.line({"kind": "interval", "loss": 1.0, "bad_steps": 0, **record})
    assert console.line({"kind": "interval", "loss": 1.0, "bad_steps": 0, "overflow_steps": 3, **record}) == (
        f"{line} overflows 3"
    )
