"""`depthray compare`: the frames are the same for all, and each network sees them as it was trained to."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from frames import folder_dataset

import depthray
from depthray.__main__ import main
from depthray.checkpoints import save
from depthray.evaluation.comparing.comparison import Comparison
from depthray.training import preflight
from depthray.training.state import begin

SMALL = ["data.source=folder", "data.val_fraction=0.5", "train.batch_size=2", "train.precision=fp32"]


def saved(run: Path, data: Path, *overrides: str) -> Path:
    """A run with a checkpoint of an untrained network."""
    made = preflight.load("demo", [*SMALL, f"data.root={data}", "data.size=32,64", *overrides])
    writer = save.CheckpointWriter(run / "checkpoints", keep_best=1, monitor="abs_rel")
    writer.save(begin(made, torch.device("cpu")).contents({"abs_rel": 1.0}, fingerprint="f" * 64))
    writer.wait()
    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_dataset(tmp_path_factory.mktemp("data") / "frames")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        saved(folder / "first", data),
        saved(folder / "second", data, "seed=1", "data.size=64,64"),
        saved(folder / "third", data, "seed=2", "data.split_seed=3"),
    ]


@pytest.fixture(scope="module")
def compared(runs: list[Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("out") / "compared"
    return depthray.compare(*runs, out=out), out


def test_scores_are_those_of_an_evaluation_of_each(runs: list[Path], compared: tuple[Comparison, Path]) -> None:
    (each,) = compared[0].sets
    assert [score.name for score in each.scores] == ["first", "second", "third"]
    for run, score in zip(runs, each.scores, strict=True):
        alone = depthray.evaluate(run, "data.split_seed=0")
        assert {metric.metric: metric.after.mean for metric in score.overall} == pytest.approx(
            {name: alone.scores[name] for name in ("abs_rel", "rmse", "delta1")}
        )
        assert score.frames.ids == tuple(row.id for row in alone.evaluation.rows)
    assert all(metric.difference is None for metric in each.scores[0].overall)


def test_frames_that_a_network_was_trained_on_are_named(runs: list[Path], compared: tuple[Comparison, Path]) -> None:
    (each,) = compared[0].sets
    trained = depthray.evaluate(runs[2], split="train").evaluation.rows
    seen = {row.id for row in trained} & set(each.scores[0].frames.ids)
    assert [score.trained_on for score in each.scores] == [0, 0, len(seen)] and seen
    assert each.warnings == [f"third was trained on {len(seen)} of these {len(each.scores[0].frames.ids)} frames"]
    assert each.warnings[0] in (compared[1] / "comparison.md").read_text()


def test_written_forms_agree(compared: tuple[Comparison, Path]) -> None:
    result, out = compared
    (each,) = result.sets
    written = json.loads((out / "comparison.json").read_text())
    candidates = written["sets"][0]["candidates"]
    assert written["baseline"] == "first" and [one["name"] for one in candidates] == ["first", "second", "third"]
    metric = candidates[1]["overall"][0]
    assert metric["difference"]["mean"] == each.scores[1].overall[0].difference.mean
    assert set(candidates[1]["ranges"]) == {"<1 m", "1-3 m", "3-5 m", ">5 m"}
    lines = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    mine = [float(line["abs_rel"]) for line in lines if line["checkpoint"] == "second"]
    assert np.mean(mine) == pytest.approx(metric["after"]["mean"])
    picture = cv2.imread(str(out / "comparison.png"))
    assert picture is not None and picture.shape[1] > 600


def test_another_baseline_turns_the_difference_around(runs: list[Path], compared: tuple[Comparison, Path]) -> None:
    first, second = (str(run) for run in runs[:2])
    out = compared[1].parent / "turned"
    assert main(["compare", first, "--baseline", second, "--split", "all", "--out", str(out)]) == 0
    assert main(["compare", first, second, "--split", "all", "--out", str(out.with_name("plain"))]) == 0
    turned, plain = (json.loads((folder / "comparison.json").read_text()) for folder in (out, out.with_name("plain")))
    there, here = (each["sets"][0]["candidates"][1]["overall"][0] for each in (turned, plain))
    assert there["difference"]["mean"] == pytest.approx(-here["difference"]["mean"])
    assert there["difference"]["low"] == pytest.approx(-here["difference"]["high"])


def test_several_data_sets_are_compared_each(runs: list[Path], data: Path, tmp_path: Path) -> None:
    other = folder_dataset(tmp_path / "other")
    result = depthray.compare(runs[0], runs[1], data=[data, other], split="all")
    assert [Path(each.about["data"].split(" ")[0]).name for each in result.sets] == ["frames", "other"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{0}"], 2, "give at least two checkpoints, exports or runs"),
        (["{0}", "{0}"], 2, "is given twice"),
        (["{0}", "/nowhere"], 3, "/nowhere: neither a checkpoint nor a run folder"),
        (["{0}", "{1}", "model.encoder=tiny"], 2, "an evaluation can override data.* and eval.* only"),
        (["{0}", "{1}", "--data", "/nowhere"], 3, "/nowhere"),
        (
            ["{0}", "{1}", "data.source=synthetic", "data.root=", "data.frames=8"],
            2,
            "its frames are not those of the baseline",
        ),
    ],
)
def test_mistakes_are_one_line(
    runs: list[Path], words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [word.format(*runs) for word in words]
    assert main(["compare", *given, "--out", str(tmp_path / "out")]) == code
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not (tmp_path / "out").exists()
