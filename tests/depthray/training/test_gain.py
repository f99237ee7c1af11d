"""Weights that can predict are scored before training, and at its end in pairs with the best checkpoint."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frames import folder_dataset
from process_groups import launch

from depthray.checkpoints import load, select
from depthray.cli.train import print_result
from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.errors import DataError
from depthray.evaluation.comparing.paired import FrameScores
from depthray.runs import progress
from depthray.runs.layout import STOP
from depthray.runs.run import prepare, record
from depthray.training import preflight
from depthray.training.dry_run import check_before_run
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, fit
from depthray.training.state import begin

CPU = torch.device("cpu")
SMALL = [
    *("data.size=32,64", "data.frames=48", "data.val_fraction=0.6", "train.batch_size=4", "train.epochs=2"),
    *("train.precision=fp32", "train.log_seconds=0.001"),
]


def small(*overrides: str) -> Recipe:
    return preflight.load("demo", [*SMALL, *overrides])


def train(recipe: Recipe, run: Path, *, stop: int | None = None) -> list[Epoch]:
    """Train a recipe into a run, or resume it, to its end or until a step; its epochs."""
    prepare(run, recipe, resume=(run / "recipe.yaml").exists())

    def show(line: dict[str, object]) -> None:
        if stop is not None and line["kind"] in ("interval", "epoch") and line["step"] == stop:
            (run / STOP).touch()

    return list(record(recipe, run, CPU, show=show))


def gain_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "gain.json").read_text())
    return summary


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("parent") / "run"
    train(small("train.epochs=1", "seed=3"), run)
    return run


@pytest.fixture(scope="module")
def tuned(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tuned") / "run"
    train(small(f"model.weights={parent}"), run)
    return run


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return load.load(select.committed(run / "checkpoints")[-1]).weights


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [key for key in left if not torch.equal(left[key], right[key])] == []


def test_weights_that_can_predict_are_scored_as_epoch_0(parent: Path, tuned: Path) -> None:
    records = progress.read(tuned)
    epochs = progress.epochs(records)
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2] and epochs[0]["step"] == 0
    before = load.read_metrics(select.resolve(parent))
    assert epochs[0]["abs_rel"] == before["abs_rel"] and epochs[0]["rmse"] == before["rmse"]
    notes = [str(line["text"]) for line in records if line["kind"] == "note"]
    assert sum("scored as they are, as epoch 0" in note for note in notes) == 1


def test_the_report_compares_the_best_epoch_with_the_start(tuned: Path) -> None:
    summary = gain_of(tuned)
    epochs = progress.epochs(progress.read(tuned))
    best = min(epochs[1:], key=lambda epoch: float(epoch["abs_rel"]))
    assert summary["epoch"] == best["epoch"] and summary["started_from"]
    (own,) = summary["sets"]
    assert own["name"] == "validation" and own["scene_count"] >= 6
    assert [gain["metric"] for gain in own["metrics"]] == ["abs_rel", "rmse", "delta1"]
    for gain in own["metrics"]:
        metric = gain["metric"]
        assert gain["before"]["mean"] == epochs[0][metric] and gain["after"]["mean"] == best[metric]
        assert gain["difference"]["mean"] == best[metric] - epochs[0][metric]
        for interval in (gain["before"], gain["after"], gain["difference"]):
            assert interval["low"] <= interval["mean"] <= interval["high"]
    table = (tuned / "gain.md").read_text()
    assert "# What training gained" in table and "zero-shot" in table and "abs_rel" in table


def test_scores_of_frames_are_written(tuned: Path) -> None:
    (own,) = gain_of(tuned)["sets"]
    with (tuned / "gain.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == own["frames"] and len({row["scene"] for row in rows}) == own["scene_count"]
    for side in ("before", "after"):
        mean = math.fsum(float(row[f"abs_rel_{side}"]) for row in rows) / len(rows)
        assert mean == pytest.approx(own["metrics"][0][side]["mean"], rel=1e-12)


def test_the_command_prints_the_table(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(tuned, finished=True)
    printed = capsys.readouterr().out
    assert (tuned / "gain.md").read_text() in printed and "next         depthray predict" in printed
    print_result(tuned, finished=False)
    assert "What training gained" not in capsys.readouterr().out


def test_a_run_trains_the_same_whether_it_is_scored_first(parent: Path, tuned: Path, tmp_path: Path) -> None:
    epochs = train(small(f"model.weights={parent}", "eval.zero_shot=false"), tmp_path / "run")
    assert [epoch.number for epoch in epochs] == [1, 2]
    assert not (tmp_path / "run" / "gain.json").exists()
    assert_equal(last_weights(tmp_path / "run"), last_weights(tuned))


def test_weights_of_a_part_are_not_scored(parent: Path, tmp_path: Path) -> None:
    weights = load.load(select.resolve(parent)).weights
    encoder = {key.removeprefix("encoder."): value for key, value in weights.items() if key.startswith("encoder.")}
    torch.save(encoder, tmp_path / "encoder.pth")
    recipe = small(f"model.weights={tmp_path / 'encoder.pth'}", "train.epochs=1")
    assert not begin(recipe, CPU).can_predict
    assert [epoch.number for epoch in train(recipe, tmp_path / "run")] == [1]
    assert not (tmp_path / "run" / "gain.json").exists()


def test_a_network_with_adapters_predicts_as_it_starts(tmp_path: Path) -> None:
    tiny = ["model.size=tiny", "data.size=28,42", *SMALL[1:], "data.source=synthetic", "data.frames=12"]
    run = tmp_path / "run"
    train(preflight.load("dpt-vits", [*tiny, "train.epochs=0"]), run)
    adapted = preflight.load("dpt-vits", [*tiny, f"model.weights={run}", "model.lora_rank=2", "train.epochs=1"])
    (first, *_) = train(adapted, tmp_path / "adapted")
    assert first.number == 0
    assert first.metrics["abs_rel"] == pytest.approx(load.read_metrics(select.resolve(run))["abs_rel"], rel=1e-5)
    assert gain_of(tmp_path / "adapted")["epoch"] == 1


@pytest.mark.parametrize("stop", [0, 3])
def test_a_resumed_run_reports_the_same_and_scores_the_start_once(
    parent: Path, tuned: Path, tmp_path: Path, stop: int
) -> None:
    recipe, run = small(f"model.weights={parent}"), tmp_path / "run"
    train(recipe, run, stop=stop)
    assert not (run / "gain.json").exists()
    resumed = train(recipe, run)
    assert 0 not in [epoch.number for epoch in resumed]
    assert_equal(last_weights(run), last_weights(tuned))
    for name in ("gain.json", "gain.md", "gain.csv"):
        assert (run / name).read_bytes() == (tuned / name).read_bytes()


def test_a_run_of_no_epochs_is_compared_once_it_has_some(parent: Path, tuned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small(f"model.weights={parent}", "train.epochs=0"), run)
    assert not (run / "gain.json").exists()
    train(small(f"model.weights={parent}"), run)
    assert gain_of(run) == gain_of(tuned)


def test_a_worse_result_is_called_one_and_the_start_stays_the_best(parent: Path, tmp_path: Path) -> None:
    harmful = ["optim.lr=1", "optim.schedule=constant", "optim.clip_norm=0", "optim.name=sgd", "augment.hflip=0"]
    run = tmp_path / "run"
    train(small(f"model.weights={parent}", *harmful, "train.epochs=1"), run)
    assert select.resolve(run).name == "epoch-0000-step-00000000"
    summary = gain_of(run)
    gain = summary["sets"][0]["metrics"][0]
    assert summary["epoch"] == 1 and summary["best_epoch"] == 0
    assert gain["verdict"] == "worse" and gain["difference"]["low"] > 0
    text = (run / "gain.md").read_text()
    assert "abs_rel is worse than before training" in text
    assert "the run's best checkpoint is epoch-0000-step-00000000" in text


def test_patience_does_not_count_the_start(parent: Path) -> None:
    recipe = small(f"model.weights={parent}", "train.epochs=4", "train.patience=1", "optim.lr=1e-30")
    state = begin(recipe, CPU)
    events = fit(recipe, state, Frames.open(recipe))
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert epochs[0].number == 0 and epochs[1].number == 1 and not epochs[1].ended
    assert state.position.best_epoch == 1


def test_the_time_limit_is_an_end_that_is_reported(parent: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", small(f"model.weights={parent}", "train.epochs=1")
    train(recipe, run)
    (run / "gain.json").unlink()
    longer = small(f"model.weights={parent}", "train.epochs=9", "train.max_minutes=1e-6")
    train(longer, run)
    assert gain_of(run)["epoch"] == 1


TWO = """
import sys
import torch
from pathlib import Path
from depthray import distributed
from depthray.runs.run import prepare, record
from depthray.training import preflight

torch.set_num_threads(1)
recipe, run = preflight.load("demo", sys.argv[2:]), Path(sys.argv[1])
device = distributed.start(gpu=False)
if distributed.is_main():
    prepare(run, recipe, resume=False)
distributed.gather([])
for _ in record(recipe, run, device):
    pass
distributed.stop()
"""


def test_two_processes_report_what_one_does(parent: Path, tmp_path: Path) -> None:
    few = ["data.frames=24", "train.epochs=1", f"model.weights={parent}", f"eval.also={further(tmp_path)}"]
    train(small(*few), tmp_path / "one")
    launch(TWO, 2, str(tmp_path / "two"), *SMALL, *few)
    one, two = (gain_of(tmp_path / name)["sets"] for name in ("one", "two"))
    assert [each["path"] for each in one] == [each["path"] for each in two]
    for left, right in zip(one, two, strict=True):
        assert left["frames"] == right["frames"]
        assert [gain["before"] for gain in left["metrics"]] == [gain["before"] for gain in right["metrics"]]
        after = [[gain["after"]["mean"] for gain in each["metrics"]] for each in (left, right)]
        assert after[0] == pytest.approx(after[1], rel=1e-4)


def further(folder: Path, name: str = "other") -> Path:
    """A data set of files, 3 scenes with 4 frames."""
    return folder_dataset(folder / name)


@pytest.fixture(scope="module")
def scored(curves: None, parent: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Epoch]:
    """A run with a further set, that set, and the scores before training."""
    folder = tmp_path_factory.mktemp("scored")
    run, other = folder / "run", further(folder)
    (first, *_) = train(small(f"model.weights={parent}", f"eval.also={other}"), run)
    return run, other, first


def test_further_sets_are_scored_before_and_at_the_end(scored: tuple[Path, Path, Epoch], tuned: Path) -> None:
    run, other, first = scored
    assert_equal(last_weights(run), last_weights(tuned))
    own, also = gain_of(run)["sets"]
    assert own == gain_of(tuned)["sets"][0]
    assert (also["name"], also["path"], also["frames"], also["scene_count"]) == ("other", str(other), 12, 3)
    gain = also["metrics"][0]
    assert gain["before"]["mean"] == first.further[str(other)]["abs_rel"]
    assert gain["verdict"] == "too few scenes"
    records = [line for line in progress.read(run) if line["kind"] == "further"]
    assert [line["epoch"] for line in records] == [0, gain_of(run)["epoch"]]
    assert records[1]["abs_rel"] == gain["after"]["mean"]
    text = (run / "gain.md").read_text()
    assert "# Further data sets" in text and "| other " in text


def test_further_sets_of_a_run_from_scratch_are_scored_at_its_end(tmp_path: Path) -> None:
    run, other = tmp_path / "run", further(tmp_path)
    train(small("train.epochs=1", f"eval.also={other}"), run)
    _, also = gain_of(run)["sets"]
    assert also["metrics"][0]["before"] is None and also["metrics"][0]["after"]["mean"] > 0
    text = (run / "gain.md").read_text()
    assert "What training gained" not in text and "# Further data sets" in text


def test_further_sets_have_curves_of_their_own(scored: tuple[Path, Path, Epoch]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, *_ = scored
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    steps = {name: [point.step for point in board.Scalars(f"{name}/abs_rel")] for name in ("also/other", "val")}
    assert steps["also/other"][0] == steps["val"][0] == 0
    assert len(steps["also/other"]) == 2 and len(steps["val"]) == 3


def test_a_missing_set_is_an_error_before_training(tmp_path: Path) -> None:
    recipe = small(f"eval.also={tmp_path / 'none'}")
    with pytest.raises(DataError, match=r"eval\.also=.*none: .*does not exist"):
        check_before_run(recipe, start=True)


def test_frames_held_out_by_a_further_set_are_the_ones_scored(tmp_path: Path) -> None:
    from frames import read_index, write_index

    other = further(tmp_path)
    rows = [{**row, "split": "val" if row["scene"] == "scene-1" else "train"} for row in read_index(other)]
    write_index(other, rows)
    (also,) = Frames.open(small(f"eval.also={other}")).further
    assert len(also.indices) == 4


def test_sets_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    paths = [further(tmp_path / folder) for folder in ("a", "b")]
    names = [each.name for each in Frames.open(small(f"eval.also={paths[0]},{paths[1]}")).further]
    assert names == [str(path) for path in paths]


def test_scores_of_frames_survive_a_checkpoint(parent: Path) -> None:
    recipe = small(f"model.weights={parent}")
    state = begin(recipe, CPU)
    next(iter(fit(recipe, state, Frames.open(recipe))))
    saved = state.contents({}, fingerprint="").state["before"]
    restored = FrameScores.from_state_dict(saved["validation"])
    assert restored.ids == state.before["validation"].ids
    assert np.array_equal(restored.table, state.before["validation"].table, equal_nan=True)


def test_paths_of_further_sets_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipes.absolute(small("eval.also=other")).eval.also == (str(tmp_path / "other"),)
