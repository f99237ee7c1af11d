"""Frozen parts stay as they are to the bit, runs that freeze, adapt or end a phase early resume exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from process_groups import launch
from safetensors.torch import load_file

from depthray import predict
from depthray.checkpoints import load, select
from depthray.config.sections import Recipe
from depthray.runs.layout import STOP
from depthray.runs.run import prepare, record
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, fit
from depthray.training.state import State, begin
from depthray.training.throughput import Interval

CPU = torch.device("cpu")
SMALL = [
    *("data.source=synthetic", "data.size=28,42", "data.fit=exact", "data.frames=24", "train.batch_size=4"),
    *("train.epochs=2", "train.precision=fp32", "train.log_seconds=0.001", "eval.batch_size=4"),
]
BATCHNORM = ["demo", "model.encoder=timm/test_efficientnet"]  # of 80,000 parameters; those of demo have group norm
LORA = ["dpt-vits", "model.size=tiny", "model.lora_rank=4", "optim.lr=1e-3", "optim.encoder_lr=1"]
DECAYED = ["optim.weight_decay=0.1", "optim.average=ema"]
REGIMES = {
    "freeze": [*BATCHNORM, *DECAYED, "optim.freeze=encoder.*", "optim.freeze_epochs=1", "optim.layer_decay=0.8"],
    "lora": [*LORA, "optim.average=ema", "optim.schedule=onecycle"],
    "lora-frozen-first": [*LORA, "optim.freeze=encoder.blocks.0.*", "optim.freeze_epochs=1", "model.lora_mlp=true"],
    "swa": [
        *(*BATCHNORM, "optim.average=swa", "optim.swa_start=0.3"),
        "optim.freeze=encoder.network.conv_stem.*,encoder.network.bn1.*",
    ],
    "patience": [
        *("demo", "optim.lr=1e-30", "optim.schedule=constant", "train.epochs=4", "train.patience=1"),
        *("finetune.epochs=1", "finetune.lr=1e-3", "optim.average=swa", "optim.swa_start=0.5"),
        *("optim.freeze=encoder.*", "optim.freeze_epochs=2"),
    ],
}


def small(recipe: str, *overrides: str) -> Recipe:
    return preflight.load(recipe, [*SMALL, *overrides])


def train(recipe: Recipe, run: Path, *, stop: int = 0) -> Path:
    """Train a recipe into a run, or resume it, until its end or a step; its last checkpoint."""
    prepare(run, recipe, resume=(run / "recipe.yaml").exists())

    def show(line: dict[str, object]) -> None:
        if stop and line["kind"] == "interval" and line["step"] == stop:
            (run / STOP).touch()

    for _ in record(recipe, run, CPU, show=show):
        pass
    return select.committed(run / "checkpoints")[-1]


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [key for key in left if left[key].numpy().tobytes() != right[key].numpy().tobytes()] == []


def copied(state: State) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.model.state_dict().items()}


@pytest.mark.parametrize("regime", REGIMES)
def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path, regime: str) -> None:
    recipe = small(*REGIMES[regime])
    straight = load.load(train(recipe, tmp_path / "straight"))
    steps = straight.step
    for stop in (2, steps // 2, steps - 2):
        train(recipe, tmp_path / "stopped", stop=stop)
    assert_equal(load.load(train(recipe, tmp_path / "stopped")).weights, straight.weights)


# Not all pairs: an average of steps that change nothing does not depend on the optimiser that took them.
@pytest.mark.parametrize(
    ("name", "average"),
    [("adamw", "none"), ("adamw", "ema"), ("adamw", "swa"), ("adam", "none"), ("adan", "none"), ("sgd", "none")],
)
def test_frozen_parts_do_not_change_by_a_bit(tmp_path: Path, name: str, average: str) -> None:
    frozen = ["optim.encoder_lr=0", "optim.weight_decay=0.1", "optim.swa_start=0.2", "train.epochs=1"]
    recipe = small(*BATCHNORM, *frozen, f"optim.name={name}", f"optim.average={average}", "data.frames=12")
    before = copied(begin(recipe, CPU))
    after = load_file(train(recipe, tmp_path / "run") / "model.safetensors")
    encoder = [key for key in after if key.startswith("encoder.")]
    assert_equal({key: before[key] for key in encoder}, {key: after[key] for key in encoder})
    changed = [key for key in after if not torch.equal(before[key], after[key])]
    assert changed and any("running_mean" in key for key in changed)


def test_what_is_frozen_at_first_learns_later(tmp_path: Path) -> None:
    recipe = small(*BATCHNORM, "optim.freeze=encoder.*", "optim.freeze_epochs=1", "optim.weight_decay=0.1")
    state = begin(recipe, CPU)
    before = copied(state)
    frozen = []
    for event in fit(recipe, state, Frames.open(recipe)):
        if isinstance(event, Epoch):
            now = state.model.state_dict()
            frozen.append(all(torch.equal(before[key], now[key]) for key in before if key.startswith("encoder.")))
    assert frozen == [True, False]
    statistics = "encoder.network.bn1.running_mean"
    assert not torch.equal(before[statistics], state.model.state_dict()[statistics])


def test_frozen_batch_norm_keeps_statistics_and_trains_its_weights() -> None:
    recipe = small(*BATCHNORM, "train.freeze_batchnorm=true", "train.epochs=1")
    state = begin(recipe, CPU)
    before = copied(state)
    list(fit(recipe, state, Frames.open(recipe)))
    now = state.model.state_dict()
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    changed = {key.rpartition(".")[2] for key in now if not torch.equal(before[key], now[key])}
    assert changed.isdisjoint(statistics)
    assert not torch.equal(before["encoder.network.bn1.weight"], now["encoder.network.bn1.weight"])


def test_a_checkpoint_with_adapters_predicts_with_merged_weights(tmp_path: Path) -> None:
    recipe = small(*LORA, "train.epochs=1")
    checkpoint = train(recipe, tmp_path / "run")
    weights = load.load(checkpoint).weights
    assert any(".lora_" in key for key in weights)
    network = begin(recipe, CPU, start=False).model.eval()
    network.load_state_dict(weights)
    predictor = predict.load(checkpoint, device="cpu")
    assert not any(".lora_" in key for key in predictor.model.state_dict())
    batch: dict[str, torch.Tensor] = {"image": torch.rand(1, 3, 28, 42)}
    with torch.no_grad():
        assert torch.allclose(predictor.model(batch)["depth"], network(batch)["depth"], rtol=1e-5, atol=1e-5)


def scores(recipe: Recipe, run: Path) -> dict[str, float]:
    return load.read_metrics(train(recipe, run))


def test_a_run_from_another_runs_checkpoint_beats_the_same_from_scratch(tmp_path: Path) -> None:
    learning = ["curriculum.sizes=[]", "data.frames=48", "data.val_fraction=0.25", "optim.average=none"]
    rates = ["optim.lr=3e-3", "optim.schedule=cosine", "seed=1"]
    first = tmp_path / "first"
    train(small("masknet", *learning, *rates, "train.epochs=5"), first)
    scratch = scores(small("masknet", *learning, *rates), tmp_path / "scratch")
    tuned = scores(small("masknet", *learning, *rates, f"model.weights={first}"), tmp_path / "tuned")
    assert tuned["train_loss"] < scratch["train_loss"]
    assert tuned["iou"] > scratch["iou"]
    # Seed 001's second phase, alone: a fresh optimiser from the first one's checkpoint.
    phase = ["train.epochs=0", "finetune.epochs=2", "finetune.lr=1e-3", f"model.weights={first}"]
    assert scores(small("masknet", *learning, *rates, *phase), tmp_path / "phase")["iou"] > scratch["iou"]


def test_a_run_starts_from_the_merged_weights_of_one_with_adapters(tmp_path: Path) -> None:
    first = train(small(*LORA, "train.epochs=1"), tmp_path / "first")
    merged = load.build_network(load.load(first), where=first).state_dict()
    for rank in (0, 2):
        recipe = small(*LORA, f"model.lora_rank={rank}", f"model.weights={tmp_path / 'first'}")
        weights = begin(recipe, CPU).model.state_dict()
        assert_equal({key: weights[key] for key in merged}, dict(merged))


PATIENT = [
    *("demo", "optim.lr=1e-30", "optim.schedule=constant", "train.epochs=9", "train.patience=2"),
    *("finetune.epochs=3", "finetune.lr=1e-3", "finetune.schedule=constant", "data.frames=12"),
]


def epochs_of(recipe: Recipe) -> tuple[list[Epoch], list[float]]:
    """The epochs of a training, and the rates of its progress lines."""
    events = list(fit(recipe, begin(recipe, CPU), Frames.open(recipe)))
    rates = [event.lr for event in events if isinstance(event, Interval)]
    return [event for event in events if isinstance(event, Epoch)], rates


def test_patience_ends_the_first_phase_and_the_second_follows() -> None:
    epochs, rates = epochs_of(small(*PATIENT))
    first = next(number for number, epoch in enumerate(epochs, start=1) if epoch.note)
    assert epochs[first - 1].note == "the second phase starts: no better abs_rel for 2 epochs"
    assert first < 9 and len(epochs) > first
    assert [epoch.metrics["lr"] for epoch in epochs] == [1e-30] * first + [1e-3] * (len(epochs) - first)
    assert {rate for rate in rates} == {1e-30, 1e-3}
    assert epochs[-1].ended in ("all epochs done", "no better abs_rel for 2 epochs")


def test_patience_counts_anew_in_the_second_phase() -> None:
    epochs, _ = epochs_of(small(*PATIENT, "finetune.lr=1e-30"))
    first = next(number for number, epoch in enumerate(epochs, start=1) if epoch.note)
    assert len(epochs) == first + 2
    assert epochs[-1].ended == "no better abs_rel for 2 epochs"


def test_patience_ends_a_run_of_an_earlier_version() -> None:
    epochs, _ = epochs_of(small(*PATIENT, "train.patience_ends=run"))
    assert epochs[-1].ended == "no better abs_rel for 2 epochs" and not any(epoch.note for epoch in epochs)
    assert {epoch.metrics["lr"] for epoch in epochs} == {1e-30}


def test_patience_wants_scores_that_are_better_by_min_delta() -> None:
    better = small("demo", "data.frames=12", "train.epochs=6", "train.patience=2", "train.min_delta=9")
    epochs, _ = epochs_of(better)
    assert len(epochs) == 3  # the first is better than none
    assert epochs[-1].ended == "no better abs_rel by 9 for 2 epochs"


def test_momentum_follows_onecycle_in_the_optimiser() -> None:
    recipe = small("demo", "optim.schedule=onecycle", "train.epochs=1", "data.frames=40")
    state = begin(recipe, CPU)
    seen: list[list[tuple[float, float]]] = []
    state.optimiser.register_step_pre_hook(
        lambda optimiser, *_: seen.append([group["betas"] for group in optimiser.param_groups])
    )
    list(fit(recipe, state, Frames.open(recipe)))
    assert all(len(set(betas)) == 1 and betas[0][1] == 0.999 for betas in seen)
    first = [betas[0][0] for betas in seen]
    assert first[0] == pytest.approx(0.95) and min(first) < 0.87 and first[-1] == pytest.approx(0.95)


TWO = """
import sys
import torch
from depthray import distributed
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import fit
from depthray.training.state import begin

recipe = preflight.load(sys.argv[2], sys.argv[3:])
device = distributed.start(gpu=False)
state = begin(recipe, device)
list(fit(recipe, state, Frames.open(recipe)))
if distributed.is_main():
    torch.save(state.predictor.state_dict(), sys.argv[1])
distributed.stop()
"""


def test_two_processes_freeze_and_release_as_one_does(tmp_path: Path) -> None:
    recipe, *rest = [*LORA, *SMALL, "optim.freeze=encoder.blocks.0.*", "optim.freeze_epochs=1", "optim.name=sgd"]
    launch(TWO, 2, str(tmp_path / "two"), recipe, *rest)
    two = torch.load(tmp_path / "two", weights_only=True)
    one = train_alone(preflight.load(recipe, rest))
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-5
    start = begin(preflight.load(recipe, rest), CPU).model.state_dict()
    assert not torch.equal(start["encoder.blocks.0.attn.qkv.lora_b"], one["encoder.blocks.0.attn.qkv.lora_b"])


def train_alone(recipe: Recipe) -> dict[str, torch.Tensor]:
    state = begin(recipe, CPU)
    list(fit(recipe, state, Frames.open(recipe)))
    return dict(state.predictor.state_dict())
