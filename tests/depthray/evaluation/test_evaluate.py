"""Evaluation: equal scores for any number of processes, intervals, tables, and the command."""

import csv
import io
import json
import math
import socket
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from frames import folder_dataset
from process_groups import launch
from scoring import BATCH, COUNT, DATA, Net, Rooms

from depthray import models
from depthray.checkpoints import load, manifest, save
from depthray.cli import evaluate as evaluate_command
from depthray.data.loader import eval_batches
from depthray.errors import CheckpointError, DataError, UsageError
from depthray.evaluation import bootstrap, metrics, report
from depthray.evaluation.baselines import fit, trivial_scores
from depthray.evaluation.evaluate import evaluate, sheet_rows
from depthray.evaluation.protocols import NYU_BTS, PLAIN, PROTOCOLS
from depthray.evaluation.report import Evaluation, ScoredFrame
from depthray.runs import locate
from depthray.training import preflight

CPU = torch.device("cpu")


def score(*, model=None, indices=range(COUNT), batch_size=BATCH, protocol=PLAIN, **process):
    batches = eval_batches(Rooms(), indices, DATA, batch_size=batch_size, **process)
    return evaluate(model or Net(), batches, protocol=protocol, device=CPU)


class Oracle(Net):
    """Predicts a constant."""

    def __init__(self, metres):
        super().__init__()
        self.metres = metres

    def forward(self, batch):
        return {"depth": torch.full_like(batch["image"][:, :1], self.metres)}


def test_rows_are_the_frames_in_order_with_their_names():
    evaluation = score(indices=[5, 2, 9, 1, 0])
    frames = Rooms().frames
    assert [row.index for row in evaluation.rows] == [0, 1, 2, 5, 9]
    named = [(row.id, row.scene, row.source) for row in evaluation.rows]
    assert named == [(frames[i].id, frames[i].scene, frames[i].source) for i in (0, 1, 2, 5, 9)]


def test_score_of_a_constant_is_the_oracle():
    truths = [Rooms().read(i)["depth"] for i in range(COUNT)]
    expected = [np.mean(np.abs(2 - d[d > 0].astype(float)) / d[d > 0]) for d in truths if d.any()]
    assert len(expected) == COUNT - 1
    assert score(model=Oracle(2.0)).scores()["abs_rel"] == pytest.approx(np.mean(expected), rel=1e-8)


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_splitting_batches_does_not_change_a_bit(world_size):
    together = score()
    parts = [score(rank=rank, world_size=world_size) for rank in range(min(world_size, 6))]
    rows = sorted((row for part in parts for row in part.rows), key=lambda row: row.index)
    again = Evaluation(PLAIN, rows)
    assert np.array_equal(again.sums, together.sums) and report.as_json(again.summary()) == report.as_json(
        together.summary()
    )


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


GROUPS = (
    "import sys; from pathlib import Path; import scoring; scoring.score_in_groups(Path(sys.argv[1]), sys.argv[2:])"
)


def test_one_two_and_three_processes_agree(tmp_path):
    launch(GROUPS, 3, str(tmp_path), *(str(free_port()) for _ in (1, 2, 3)))
    outputs = [each for file in tmp_path.iterdir() for each in json.loads(file.read_text())]
    assert sorted(each["world_size"] for each in outputs) == [1, 2, 2, 3, 3, 3]
    assert all(each["ids"] == outputs[0]["ids"] and len(each["ids"]) == COUNT for each in outputs)
    scores = [metrics.scores(np.array(each["sums"])) for each in outputs]
    assert all(each == pytest.approx(scores[0], rel=1e-9) for each in scores)
    assert all(each["sums"] == outputs[0]["sums"] for each in outputs)


@pytest.mark.parametrize("training", [True, False])
def test_model_is_scored_in_eval_mode_and_left_as_it_was(training):
    seen, model = [], Net().train(training)
    model.register_forward_hook(lambda module, *_: seen.append(module.training))
    score(model=model)
    assert seen and not any(seen) and model.training is training


def test_nothing_to_score_is_an_error_that_names_the_protocol():
    with pytest.raises(DataError, match="none of 1 frames has a pixel that protocol plain scores"):
        score(indices=[3])


def test_broken_predictions_are_counted_and_scored_as_the_limit():
    summary = score(model=Oracle(math.nan), indices=[0]).summary()
    assert summary["broken_pixels"] == 24 * 32
    assert summary["overall"]["delta3"]["mean"] < 0.5
    assert score(indices=[0]).summary()["broken_pixels"] == 0


def test_summary_is_finite_json_and_groups_add_up():
    summary = json.loads(report.as_json(score().summary()))
    assert (
        summary["protocol"]["name"] == "plain" and summary["frames"] == COUNT and summary["frames_scored"] == COUNT - 1
    )
    assert sum(scene["frames"] for scene in summary["scenes"]) == COUNT
    assert sum(part["share"] for part in summary["ranges"]) == pytest.approx(1)
    values = [scene["abs_rel"] for scene in summary["scenes"]]
    assert values == sorted(values, reverse=True)
    sources = {group["name"]: group["abs_rel"] for group in summary["sources"]}
    assert sources["a"] == pytest.approx(score(indices=range(0, COUNT, 2)).scores()["abs_rel"], rel=1e-6)


def test_a_scene_without_scored_frames_comes_last_as_null():
    evaluation = score(indices=[3, 4, 5, 8])
    last = json.loads(report.as_json(evaluation.summary()))["scenes"][-1]
    assert last["name"] == "room-0" and last["abs_rel"] is None and last["frames"] == 1
    assert "| room-0 | 1      | -" in report.markdown(evaluation.summary())


def test_written_files(tmp_path):
    evaluation = Evaluation(
        NYU_BTS, score(protocol=NYU_BTS).rows, {"checkpoint": "run/best", "data_fingerprint": "ab12"}
    )
    evaluation.write(tmp_path / "new" / "folder")
    text = (tmp_path / "new/folder/evaluation.md").read_text()
    assert all(part in text for part in ("nyu-bts", "run/best", "ab12", "## By scene, worst first", "3 scenes", ">5 m"))
    lines = list(csv.DictReader(io.StringIO((tmp_path / "new/folder/evaluation.csv").read_text())))
    assert [int(line["index"]) for line in lines] == list(range(COUNT))
    kept = [float(line["rmse"]) for line in lines if line["rmse"] != "nan"]
    written = json.loads((tmp_path / "new/folder/evaluation.json").read_text())
    assert written["overall"]["rmse"]["mean"] == math.fsum(kept) / len(kept)


def test_markdown_tables_are_rectangular_and_bars_in_names_escaped():
    rows = [ScoredFrame(0, "id", "a|b", "s", score(indices=[0]).rows[0].sums, 0)]
    text = report.markdown(Evaluation(PLAIN, rows).summary())
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5 and "a\\|b" in text
    assert all(len({len(line) for line in table}) == 1 for table in tables)


def test_interval_of_independent_frames_is_near_the_normal_one():
    table = np.random.default_rng(0).normal(3, 2, (400, 1))
    low, high = bootstrap.intervals(table, ["only"] * 400)[:, 0]
    half = 1.96 * table.std() / 20
    assert [low, high] == pytest.approx([table.mean() - half, table.mean() + half], abs=0.15 * half)


def test_interval_draws_whole_scenes():
    table = np.random.default_rng(0).normal(3, 2, (40, 2))
    scenes = [f"scene-{i:02d}" for i in range(40)]
    single = bootstrap.intervals(table, scenes)
    copies = bootstrap.intervals(np.repeat(table, 5, axis=0), np.repeat(scenes, 5).tolist())
    np.testing.assert_allclose(copies, single, rtol=1e-12)
    assert np.array_equal(single, bootstrap.intervals(table, scenes))


def test_interval_of_one_frame_is_its_value():
    assert bootstrap.intervals(np.array([[1.5]]), [""]).tolist() == [[1.5], [1.5]]


def test_interval_of_a_metric_is_drawn_from_the_frames_that_have_it():
    table = np.random.default_rng(0).normal(3, 2, (40, 3))
    scenes = [f"scene-{i // 4}" for i in range(40)]
    table[::4, 1] = np.nan
    table[:, 2] = np.nan
    kept = [i for i in range(40) if i % 4]
    expected = bootstrap.intervals(table[kept][:, 1:2], [scenes[i] for i in kept])
    intervals = bootstrap.intervals(table, scenes)
    assert np.array_equal(intervals[:, 1:2], expected) and np.isnan(intervals[:, 2]).all()
    assert np.array_equal(intervals[:, :1], bootstrap.intervals(table[:, :1], scenes))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_best_median_worst_are_distinct_frames(count):
    evaluation = score(indices=[i for i in range(COUNT) if i != 3][:count])
    chosen = evaluation.best_median_worst()
    values = [row.abs_rel for _, row in chosen]
    assert chosen[0][0] == "best" and values[0] == min(values) == evaluation.ranked()[0].abs_rel
    assert len({row.index for _, row in chosen}) == len(chosen) == min(len(evaluation.ranked()), 6)
    assert max(values) == evaluation.ranked()[-1].abs_rel


def test_sheets_show_the_scored_pixels_at_the_size_of_the_truth():
    batches = eval_batches(Rooms(), [1], DATA, batch_size=1)
    (row,) = sheet_rows(Oracle(20.0), batches, protocol=PLAIN, device=CPU)
    assert row.image.shape == (24, 32, 3) and row.image.dtype == np.uint8
    assert row.truth.shape == row.prediction.shape == (30, 34)
    assert np.all(row.prediction == 10.0) and np.array_equal(row.truth, Rooms().read(1)["depth"])


def test_a_pooled_protocol_weighs_pixels_and_not_frames():
    evaluation = score(protocol=replace(PLAIN, name="pooled", pooled=True))
    overall = evaluation.summary()["overall"]
    count = sum(np.count_nonzero(Rooms().read(i)["depth"]) for i in range(COUNT))
    assert evaluation.summary()["pixels"] == count
    per_image = {row.index: row.sums[0, 0] * row.score("mae") for row in evaluation.rows if row.sums[0, 0]}
    assert overall["mae"]["mean"] == pytest.approx(sum(per_image.values()) / count, rel=1e-12)
    assert overall["mae"]["mean"] != pytest.approx(score().scores()["mae"], rel=1e-4)
    assert all(each["low"] < each["mean"] < each["high"] for each in overall.values())


def test_trivial_predictors_are_the_mean_map_and_the_median():
    depths = [Rooms().read(i)["depth"] for i in (0, 2, 4)]
    maps = fit(Rooms(), [0, 2, 3, 4], protocol=PLAIN)
    np.testing.assert_allclose(maps["mean map"][4:], np.mean(depths, axis=0)[4:], rtol=1e-6)
    everything = np.concatenate([depth[depth > 0] for depth in depths])
    np.testing.assert_allclose(maps["mean map"][:4], everything.mean(), rtol=1e-6)
    np.testing.assert_allclose(maps["median"], np.percentile(everything, 50, method="lower"), atol=6e-4)


def test_trivial_scores_are_those_of_the_evaluation():
    scores = trivial_scores(Rooms(), [0, 2, 4], range(COUNT), protocol=PLAIN)
    median = float(fit(Rooms(), [0, 2, 4], protocol=PLAIN)["median"][0, 0])
    assert set(scores) == {"mean map", "median"} and set(scores["median"]) == set(metrics.METRICS)
    assert scores["median"] == pytest.approx(score(model=Oracle(median)).scores(), rel=1e-9)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with one checkpoint of an untrained network."""
    overrides = ["data.size=32,32", "eval.batch_size=5", "data.val_fraction=0.4", "data.frames=12"]
    demo = preflight.load("demo", overrides)
    torch.manual_seed(0)
    weights = models.build_model(demo.model, demo.data.inputs).state_dict()
    folder = tmp_path_factory.mktemp("run")
    contents = load.CheckpointContents(weights, {}, demo, {"abs_rel": 0.5}, epoch=3, step=30, fingerprint="0" * 64)
    save.write(folder / "checkpoints", contents)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return folder_dataset(tmp_path_factory.mktemp("data"))


def test_command_writes_and_prints_the_scores(run, dataset, tmp_path, capsys):
    overrides = ["eval.protocol=nyu-bts", "--data", str(dataset), "--split", "all", "--out", str(tmp_path)]
    assert evaluate_command.main([str(run), *overrides, "data.encoding=uint16_mm"]) == 0
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    assert (summary["frames"], summary["split"], summary["protocol"]["name"]) == (12, "all", "nyu-bts")
    assert "epoch 3, step 30" in summary["checkpoint"] and len(summary["data_fingerprint"]) == 64
    assert f"{summary['overall']['rmse']['mean']:.4f}" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[2] == 3


def test_command_scores_held_out_frames_into_the_run_by_default(run, capsys):
    assert evaluate_command.main([str(run)]) == 0
    (out,) = (run / "evaluations").iterdir()
    assert out.name == "epoch-0003-step-00000030-val-plain" and str(out) in capsys.readouterr().out
    summary = json.loads((out / "evaluation.json").read_text())
    assert summary["frames"] == 4 and summary["data"] == "synthetic"
    assert manifest.verify(locate.resolve(run))


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["model.encoder=resnet18"], UsageError, "model.encoder=resnet18: an evaluation can override data"),
        (["eval.protocol=nyu-bst"], UsageError, "did you mean 'nyu-bts'"),
        (["--split", "vall"], UsageError, "no split 'vall'.*did you mean 'val'"),
        (["--data", "nowhere"], DataError, "nowhere does not exist"),
        (["--source", "foldr"], UsageError, "did you mean 'folder'"),
        (["--split", "test"], DataError, "split 'test' has no frames"),
    ],
)
def test_command_names_what_is_wrong(run, overrides, error, message):
    with pytest.raises(error, match=message):
        evaluate_command.main([str(run), *overrides])


def test_weights_that_do_not_fit_are_a_checkpoint_error(run, tmp_path):
    contents = load.load(locate.resolve(run))
    weights = {key: value for key, value in contents.weights.items() if not key.endswith("bias")}
    small = load.CheckpointContents(weights, {}, contents.recipe, {}, epoch=1, step=1, fingerprint="")
    path = save.write(tmp_path / "checkpoints", small)
    with pytest.raises(CheckpointError, match="the weights do not fit the recipe"):
        evaluate_command.main([str(path)])


def test_help_does_not_wait_for_torch():
    code = "import sys, depthray.cli.evaluate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_lists_every_protocol(capsys):
    with pytest.raises(SystemExit):
        evaluate_command.main(["-h"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in PROTOCOLS) and max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in ("kitti-garg-kb", "legacy-004")])
def test_every_protocol_evaluates_and_splits_alike(name):
    protocol = PROTOCOLS[name]
    together = score(protocol=protocol)
    parts = [score(rank=rank, world_size=3, protocol=protocol) for rank in range(3)]
    rows = sorted((row for part in parts for row in part.rows), key=lambda row: row.index)
    assert report.as_json(Evaluation(protocol, rows).summary()) == report.as_json(together.summary())
    overall = together.summary()["overall"].values()
    assert overall and all(each["low"] <= each["mean"] <= each["high"] for each in overall)
    assert (
        f"protocol {name}" in report.markdown(together.summary()) and report.as_csv(together).count("\n") == COUNT + 1
    )
