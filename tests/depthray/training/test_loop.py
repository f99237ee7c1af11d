"""The training loop in one process: exact resume, skipped steps, accumulation, phases, stopping."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import depthray
from depthray.checkpoints import load, select
from depthray.config.sections import Recipe
from depthray.errors import DataError, DivergedError, UsageError
from depthray.runs import console
from depthray.runs.layout import STOP
from depthray.runs.locate import summary
from depthray.runs.run import prepare, record
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, SavePoint, fit
from depthray.training.schedule import learning_rate
from depthray.training.state import State, begin
from depthray.training.throughput import Interval

CPU = torch.device("cpu")
SMALL = [
    "data.size=32,64",
    "data.frames=40",
    "train.batch_size=8",
    "train.epochs=2",
    "train.precision=fp32",
    "train.log_seconds=0.001",
]


def small(*overrides: str) -> Recipe:
    return preflight.load("demo", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.open(small())


def weights_after(made: Recipe, run: Path) -> dict[str, torch.Tensor]:
    """The weights of the last checkpoint of a run."""
    prepare(run, made, resume=(run / "recipe.yaml").exists())
    for _ in record(made, run, CPU):
        pass
    return load.load(select.committed(run / "checkpoints")[-1]).weights


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [key for key in left if not torch.equal(left[key], right[key])]
    assert not different, different


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optim.average=ema", "optim.schedule=plateau", "optim.plateau_patience=0"],
        ["optim.average=swa", "optim.swa_start=0.4", "finetune.epochs=1", "augment.rotate=5"],
        [
            "train.accumulate=2",
            "curriculum.chunks=2",
            "curriculum.epochs_per_chunk=1",
            "optim.name=sgd",
            "train.epochs=4",
        ],
        [
            "data.inputs=[image,sparse]",
            "data.sparse.samples=0,500",
            "data.sparse.dropout=0.2",
            "model.refine=cspn",
            "model.fill=guided",
            "model.sparse_fusion=late",
            "loss.monocular=1",
        ],
    ],
)
def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path, overrides: list[str]) -> None:
    made = small(*overrides)
    straight = weights_after(made, tmp_path / "straight")
    for step in (1, 4, 6):
        stop_at(step, made, tmp_path / "stopped")
        assert len(select.committed(tmp_path / "stopped" / "checkpoints")) in (1, 2)
    assert_equal(weights_after(made, tmp_path / "stopped"), straight)


def test_a_canonical_camera_is_scored_in_metres_and_resumed(tmp_path: Path) -> None:
    """Labels are a third of the metres that are scored, and a stopped run resumes to the same weights."""
    made = small("data.canonical_focal=15", "train.epochs=1")  # rooms at 32x64 have sqrt(fx fy) of about 45
    straight = weights_after(made, tmp_path / "straight")
    checkpoint = select.committed(tmp_path / "straight" / "checkpoints")[-1]
    metrics = load.load(checkpoint).metrics
    assert metrics["abs_rel"] < 0.8  # a third of the depth would be 0.67 off where all else is right
    assert depthray.evaluate(checkpoint).scores["abs_rel"] == pytest.approx(metrics["abs_rel"], rel=1e-5)
    stop_at(2, made, tmp_path / "stopped")
    assert_equal(weights_after(made, tmp_path / "stopped"), straight)


def stop_at(step: int, made: Recipe, run: Path) -> None:
    """Train, or resume, and ask to stop from the progress line of a step; the next step is the last."""
    prepare(run, made, resume=(run / "recipe.yaml").exists())

    def show(line: dict[str, object]) -> None:
        if line["kind"] == "interval" and line["step"] == step:
            (run / STOP).touch()

    for _ in record(made, run, CPU, show=show):
        pass
    position = load.load(select.committed(run / "checkpoints")[-1], state=True).state["position"]
    assert position["step"] in (step, step + 1)  # at the end of an epoch, that is where it stops


def poisoned(state: State, when: Callable[[int], bool]) -> None:
    """Make the network return NaN for the first frame of the steps that `when` names."""
    forward = state.model.forward
    calls = {"count": 0}

    def broken(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        prediction = forward(batch)
        if state.model.training:
            if when(calls["count"]):
                prediction["depth"] = prediction["depth"].clone()
                prediction["depth"][0] = math.nan
            calls["count"] += 1
        return prediction

    state.model.forward = broken


def test_a_non_finite_loss_is_skipped_and_counted(frames: Frames) -> None:
    made = small("train.epochs=1")
    state = begin(made, CPU)
    poisoned(state, lambda call: call == 1)
    events = list(fit(made, state, frames))
    epoch = events[-1]
    assert isinstance(epoch, Epoch)
    assert epoch.metrics["bad_steps"] == 1
    assert all(torch.isfinite(weight).all() for weight in state.model.state_dict().values())
    assert math.isfinite(epoch.metrics["train_loss"])


def test_losses_that_stay_non_finite_end_the_run_naming_the_samples(frames: Frames) -> None:
    made = small("train.max_bad_steps=2")
    state = begin(made, CPU)
    poisoned(state, lambda call: True)
    first = [batch[0]["id"][0] for batch in frames.train_epoch(0)][:2]
    with pytest.raises(DivergedError, match="not finite for 2 steps in a row") as caught:
        list(fit(made, state, frames))
    assert first[1] in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_skipped_step_leaves_no_trace(frames: Frames) -> None:
    made = small("train.epochs=1", "model.encoder=resnet18", "data.frames=24")
    state = begin(made, CPU)
    poisoned(state, lambda call: True)
    before = {key: value.clone() for key, value in state.model.state_dict().items() if value.is_floating_point()}
    with pytest.raises(DivergedError):
        list(fit(small("train.max_bad_steps=1", "model.encoder=resnet18"), state, frames))
    assert_equal(before, {key: state.model.state_dict()[key] for key in before})


def test_accumulated_gradients_equal_the_whole_batch() -> None:
    ends = []
    for parts in (1, 4):
        made = small("train.epochs=1", f"train.accumulate={parts}", "optim.name=sgd", "optim.lr=0.1")
        state = begin(made, CPU)
        list(fit(made, state, Frames.open(made)))
        ends.append(state.model.state_dict())
    assert max((ends[0][key] - ends[1][key]).abs().max().item() for key in ends[0]) < 1e-5


def test_the_second_phase_has_its_own_rate_and_a_fresh_optimiser(frames: Frames) -> None:
    made = small("train.epochs=1", "finetune.epochs=1", "finetune.lr=1e-5", "optim.schedule=constant", "optim.lr=1e-3")
    state = begin(made, CPU)
    first = state.optimiser
    rates = [(event.epoch, event.lr) for event in fit(made, state, frames) if isinstance(event, Interval)]
    assert {lr for epoch, lr in rates if epoch == 1} == {1e-3}
    assert max(lr for epoch, lr in rates if epoch == 2) == 1e-5
    assert state.optimiser is not first


def test_patience_ends_training_early(frames: Frames) -> None:
    made = small("train.epochs=9", "train.patience=1", "optim.lr=1e-30", "optim.schedule=constant")
    epochs = [event for event in fit(made, begin(made, CPU), frames) if isinstance(event, Epoch)]
    assert len(epochs) < 9
    assert epochs[-1].ended == "no better abs_rel for 1 epochs"


def test_the_time_limit_ends_training_with_a_save_point(frames: Frames) -> None:
    made = small("train.epochs=9", "train.max_minutes=1e-6")
    events = list(fit(made, begin(made, CPU), frames))
    assert isinstance(events[-1], SavePoint)
    assert events[-1].reason == "time limit of 1e-06 minutes"


def test_the_rate_is_a_pure_function_of_the_position(frames: Frames) -> None:
    made = small("optim.schedule=cosine", "optim.lr=1")
    assert learning_rate(made, 0, steps_per_epoch=4) == 1.0
    assert learning_rate(made, 4, steps_per_epoch=4) == pytest.approx(0.5)


def test_reusing_a_run_without_resume_is_an_error(tmp_path: Path) -> None:
    prepare(tmp_path / "run", small(), resume=False)
    with pytest.raises(UsageError, match="--resume"):
        prepare(tmp_path / "run", small(), resume=False)


def test_resuming_with_another_recipe_names_what_differs(tmp_path: Path) -> None:
    prepare(tmp_path / "run", small("optim.lr=0.2"), resume=False)
    prepare(tmp_path / "run", small("train.epochs=5", "optim.lr=0.2"), resume=True)
    with pytest.raises(UsageError, match=r"optim\.lr was 0\.2, is 0\.1"):
        prepare(tmp_path / "run", small("train.epochs=5", "optim.lr=0.1"), resume=True)


def test_resuming_on_other_data_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = small("train.epochs=1")
    weights_after(made, run)
    changed = small("train.epochs=2", "data.frames=41")
    with pytest.raises(DataError, match="fingerprint"):
        list(record(changed, run, CPU))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=64", "64"),
        ("curriculum.chunks=9", "curriculum.chunks"),
        ("data.val_fraction=0", "val_fraction"),
    ],
)
def test_too_few_frames_are_reported_before_training(override: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Frames.open(small(override))


def test_training_lowers_the_loss(frames: Frames) -> None:
    made = small("train.epochs=6")
    losses = [event.metrics["train_loss"] for event in fit(made, begin(made, CPU), frames) if isinstance(event, Epoch)]
    assert losses[-1] < 0.8 * losses[0], losses


def test_a_run_of_no_epochs_is_a_scored_checkpoint_of_the_weights_as_they_came(tmp_path: Path) -> None:
    made, run = small("train.epochs=0", "optim.average=ema"), tmp_path / "run"
    lines: list[dict[str, object]] = []
    prepare(run, made, resume=False)
    [epoch] = record(made, run, CPU, show=lines.append)
    assert epoch.number == epoch.step == 0 and epoch.ended == "no epochs requested"
    best, scores = summary(run)
    assert best.name == "epoch-0000-step-00000000"
    assert math.isfinite(scores["abs_rel"]) and scores["abs_rel"] == epoch.metrics["abs_rel"]
    assert_equal(load.load(best).weights, dict(begin(made, CPU).model.state_dict()))
    assert "epoch 0 done: abs_rel" in "\n".join(console.line(line) for line in lines)


@pytest.mark.parametrize("schedule", ["onecycle", "plateau"])  # the others depend on the step alone, as onecycle does
def test_a_run_of_no_epochs_is_trained_on_as_if_it_had_not_been(tmp_path: Path, schedule: str) -> None:
    overrides = (f"optim.schedule={schedule}", "optim.average=swa", "optim.swa_start=0.4", "data.frames=20")
    straight = weights_after(small(*overrides), tmp_path / "straight")
    weights_after(small(*overrides, "train.epochs=0"), tmp_path / "later")
    assert_equal(weights_after(small(*overrides), tmp_path / "later"), straight)


def test_the_second_phase_may_come_without_the_first(frames: Frames) -> None:
    made = small("train.epochs=0", "finetune.epochs=1", "finetune.lr=1e-5", "curriculum.sizes=[[32,32]]")
    events = list(fit(made, begin(made, CPU), frames))
    rates = [event.lr for event in events if isinstance(event, Interval)]
    assert len(rates) == frames.steps_per_epoch and rates[0] == max(rates) == 1e-5
    assert isinstance(events[-1], Epoch) and events[-1].number == 1 and events[-1].ended == "all epochs done"


@pytest.mark.parametrize(
    ("start", "epochs", "expected"), [(0.5, 2, 0.5), (0.75, 1, 0.25), (0.0, 1, 1.0), (1.0, 1, 0.0)]
)
def test_swa_averages_only_what_follows_its_start(frames: Frames, start: float, epochs: int, expected: float) -> None:
    made = small(f"train.epochs={epochs}", "optim.average=swa", f"optim.swa_start={start}", "train.batch_size=4")
    state, few = begin(made, CPU), Frames(made, frames.source)
    list(fit(made, state, few))
    assert state.average is not None
    assert state.average.count == round(expected * epochs * few.steps_per_epoch)
