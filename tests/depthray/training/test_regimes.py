"""Complete regimes: runs with Adan, growing sizes, staged scale weights and sparse depth stop and resume exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from depthray import losses
from depthray.batch import Batch, Prediction
from depthray.checkpoints import load, select
from depthray.config.sections import Loss, Recipe
from depthray.runs.layout import STOP
from depthray.runs.run import prepare, record
from depthray.runtimes.precision import Precision
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, fit
from depthray.training.state import begin

CPU = torch.device("cpu")
SMALL = [
    *("data.size=32,64", "data.frames=24", "train.batch_size=4", "train.epochs=2", "train.precision=fp32"),
    *("train.log_seconds=0.001", "eval.protocol=plain"),
]
ADAN = ["optim.name=adan", "optim.weight_decay=1e-4", "optim.clip_norm=0.5", "curriculum.sizes=[[16,32]]"]
SPARSE = ["data.inputs=[image,sparse]", "data.sparse.samples=50", "data.sparse.noise=0.01"]
WORDS = [
    [*ADAN, "curriculum.epochs_per_size=1", "data.workers=1"],
    [*ADAN, *SPARSE, "finetune.epochs=1", "curriculum.epochs_per_size=2"],
]


def small(*overrides: str) -> Recipe:
    return preflight.load("demo", [*SMALL, *overrides])


def weights_after(made: Recipe, run: Path, *, stop: int = 0) -> dict[str, torch.Tensor]:
    """The weights of the last checkpoint of a run, which resumes where it is; stopped at a step if given."""
    prepare(run, made, resume=(run / "recipe.yaml").exists())

    def show(line: dict[str, object]) -> None:
        if stop and line["kind"] == "interval" and line["step"] == stop:
            (run / STOP).touch()

    for _ in record(made, run, CPU, show=show):
        pass
    return load.load(select.committed(run / "checkpoints")[-1]).weights


@pytest.mark.parametrize("overrides", WORDS, ids=["sizes", "sizes-and-sparse"])
def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path, overrides: list[str]) -> None:
    made = small(*overrides)
    straight = weights_after(made, tmp_path / "straight")
    weights_after(made, tmp_path / "stopped", stop=2)
    weights_after(made, tmp_path / "stopped", stop=6)
    ended = weights_after(made, tmp_path / "stopped")
    assert [key for key in straight if not torch.equal(straight[key], ended[key])] == []


def test_the_loss_of_each_epoch_has_its_scale_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, ...]] = []
    prepare = losses.prepare

    def watched(section: Loss) -> Callable[[Prediction, Batch], Tensor]:
        single = prepare(section.model_copy(update={"multiscale": 0.0}))  # this network has one scale

        def loss(prediction: Prediction, batch: Batch) -> Tensor:
            seen.append(section.multiscale_weights)
            return single(prediction, batch)

        return loss

    monkeypatch.setattr(losses, "prepare", watched)
    stages = ["loss.multiscale=1", "loss.multiscale_weights=3", "curriculum.scale_weights=[[1],[2]]"]
    overrides = [*stages, "curriculum.epochs_per_scale_weights=1", "train.epochs=2", "finetune.epochs=1"]
    made = small(*overrides)
    frames = Frames.open(made)
    list(fit(made, begin(made, CPU), frames))
    steps = frames.steps_per_epoch
    assert seen == [(1.0,)] * steps + [(2.0,)] * steps + [(3.0,)] * steps


LEARNING = [
    *("data.frames=40", "train.batch_size=8", "train.epochs=5"),
    *("optim.lr=2e-3", "optim.schedule=constant", "optim.clip_norm=0.5"),
]


def test_adan_lowers_the_loss_as_adamw_does() -> None:
    ends = {}
    for name in ("adan", "adamw"):
        made = small(*LEARNING, f"optim.name={name}")
        events = fit(made, begin(made, CPU), Frames.open(made))
        found = [event.metrics["train_loss"] for event in events if isinstance(event, Epoch)]
        assert found[-1] < 0.8 * found[0], found
        ends[name] = found[-1]
    assert ends["adan"] == pytest.approx(ends["adamw"], rel=0.1)


def test_half_precision_with_adan_and_clipping_learns_past_overflows() -> None:
    made = small(*LEARNING, "optim.name=adan")
    state = begin(made, CPU)
    # A recipe may not ask for it on a CPU, where it only costs time; the arithmetic is that of a GPU.
    state.precision = Precision(CPU, torch.float16)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
    found = [event.metrics for event in fit(made, state, Frames.open(made)) if isinstance(event, Epoch)]
    learned = [each["train_loss"] for each in found if math.isfinite(each["train_loss"])]  # else all steps overflowed
    assert learned[-1] < 0.8 * learned[0]
    assert found[-1]["bad_steps"] == 0  # an overflow is the scaler's to handle
    steps = {int(each["step"]) for each in state.optimiser.state.values()}
    assert 0 < min(steps) == max(steps) < state.position.step  # some were skipped, as the first scale is too large
