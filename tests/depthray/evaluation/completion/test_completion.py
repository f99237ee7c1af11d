"""The curve of error against samples: a network that copies what it is given must get better with more of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from depthray.checkpoints import save, select
from depthray.cli import completion as command
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.evaluation.completion import curve as completion
from depthray.evaluation.completion import curve_report
from depthray.imaging import plots
from depthray.training import preflight
from depthray.training.state import begin

CPU = torch.device("cpu")
SMALL = ["data.size=32,64", "data.frames=12", "data.val_fraction=0.5", "train.batch_size=4", "train.precision=fp32"]
SPARSE = ["data.inputs=[image,sparse]", "data.sparse.samples=50"]


def saved(folder: Path, *overrides: str) -> Path:
    """A checkpoint of an untrained network."""
    made = preflight.load("demo", [*SMALL, *overrides])
    writer = save.CheckpointWriter(folder / "checkpoints", keep_best=1, monitor="abs_rel")
    writer.save(begin(made, CPU).contents({"abs_rel": 1.0}, fingerprint="f" * 64))
    writer.wait()
    return select.committed(folder / "checkpoints")[-1]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("run"), *SPARSE)


class Filling(torch.nn.Module):
    """Predicts each pixel from the mean of the samples; 2 m without any. Unlike learnt ones, its errors are known."""

    inputs, stride = ("image", "sparse"), 1

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        sparse = batch["sparse"]
        count = (sparse > 0).sum(dim=(2, 3), keepdim=True)
        mean = sparse.sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)
        return {"depth": torch.where(count > 0, mean, 2.0).expand_as(sparse)}


def filled(
    path: Path, monkeypatch: pytest.MonkeyPatch, samples: list[int], *overrides: str
) -> completion.CompletionCurve:
    monkeypatch.setattr("depthray.checkpoints.load.build_network", lambda *_, **__: Filling())
    made = preflight.load(str(path / "recipe.yaml"), overrides)
    return completion.completion_curve(path, made, samples, side="val", device=CPU)


def test_more_samples_less_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = filled(path, monkeypatch, [500, 0, 5, 5])
    assert [point.samples for point in curve.points] == [0, 5, 500]
    assert [point.given for point in curve.points] == [0.0, 5.0, 500.0]
    errors = [point.scores["rmse"]["mean"] for point in curve.points]
    assert errors[0] > 1.05 * errors[1] > 1.05 * errors[2] > 0
    assert all(point.scores["rmse"]["low"] <= point.scores["rmse"]["mean"] for point in curve.points)


def test_points_are_the_same_whatever_else_is_scored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, among = filled(path, monkeypatch, [5]), filled(path, monkeypatch, [0, 5, 50])
    assert alone.points[0] == among.points[1]


def test_given_is_what_there_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = filled(path, monkeypatch, [100, 10**6], "data.sparse.pattern=grid", "data.sparse.noise=0.1")
    assert curve.points[0].given == pytest.approx(100, rel=0.1)
    assert curve.points[1].given <= 32 * 64
    assert (curve.about["pattern"], curve.about["noise"]) == ("grid", 0.1)


def test_the_command_writes_a_table_in_three_forms_and_a_plot(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(path), "data.sparse.noise=0.01", "--samples", "0", "5", "50", "--out", str(tmp_path / "out")]
    assert command.main(arguments) == 0
    lines = list(csv.DictReader((tmp_path / "out" / "completion.csv").read_text().splitlines()))
    tree = json.loads((tmp_path / "out" / "completion.json").read_text())
    assert [line["samples"] for line in lines] == ["0", "5", "50"]
    assert [float(line["given"]) for line in lines] == [0, 5, 50]
    for line, point in zip(lines, tree["points"], strict=True):
        assert float(line["rmse"]) == point["scores"]["rmse"]["mean"]
    shown = (tmp_path / "out" / "completion.md").read_text()
    assert f"{float(lines[1]['rmse']):.4f}" in shown and shown in capsys.readouterr().out
    assert tree["noise"] == 0.01 and tree["checkpoint"] == str(path)
    image = cv2.imread(str(tmp_path / "out" / "completion.png"))
    assert image is not None and image.shape == (plots.HEIGHT, 3 * plots.WIDTH, 3)


def test_without_out_it_is_written_into_the_runs_folder(path: Path) -> None:
    assert command.main([str(path.parents[1]), "--samples", "5"]) == 0
    assert (path.parents[1] / "evaluations" / f"{path.name}-val-completion" / "completion.png").is_file()


@pytest.mark.parametrize("pattern", ["lidar64", "structured-light"])
def test_a_sensor_without_a_number_of_samples_has_one_point(
    path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    curve = filled(path, monkeypatch, [0, 5, 50], f"data.sparse.pattern={pattern}", "data.sparse.errors=1")
    assert len(curve.points) == 1 and not curve.counted and curve.points[0].given > 100
    shown = curve_report.markdown(curve)
    assert f"| {pattern}" in shown and "Error with samples of a sensor" in shown


def test_regions_and_fills_are_in_every_form(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = filled(path, monkeypatch, [0, 50])
    none, some = curve.points
    for scores in (some.spread, some.bilateral):
        assert scores["rmse sampled"] < 0.8 * scores["rmse unsampled"]  # a sample is one of several pixels
        assert scores["rmse 1-2 px"] < scores["rmse 6-10 px"] and scores["rmse edges"] > scores["rmse"]
    assert np.isnan(none.scores["rmse sampled"]["mean"]) and "rmse" in curve.names and "rmse edges" not in curve.names
    # The mean of all samples is as wrong at them as elsewhere.
    assert some.scores["rmse sampled"]["mean"] == pytest.approx(some.scores["rmse unsampled"]["mean"], rel=0.3)
    curve_report.write(curve, tmp_path)
    lines = list(csv.DictReader((tmp_path / "completion.csv").read_text().splitlines()))
    assert float(lines[1]["spread_rmse edges"]) == some.spread["rmse edges"]
    tree = json.loads((tmp_path / "completion.json").read_text())
    assert tree["points"][1]["bilateral"]["rmse"] == some.bilateral["rmse"]
    image = cv2.imread(str(tmp_path / "regions.png"))
    assert image is not None and image.shape == (plots.HEIGHT, 3 * plots.WIDTH, 3)


def test_s2d_gives_samples_of_the_pixels_that_it_scores(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    forward = Filling.forward

    def watch(self: Filling, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(batch["sparse"])
        return forward(self, batch)

    monkeypatch.setattr(Filling, "forward", watch)
    for protocol, border in (("plain", True), ("nyu-s2d", False)):
        seen.clear()
        filled(path, monkeypatch, [2000], f"eval.protocol={protocol}")
        edges = torch.cat(seen)[..., [0, -1]]  # of 64 columns the outer 1.6 have no samples
        assert bool(edges.any()) == border and all(each.any() for each in seen)


def made(*overrides: str) -> Recipe:
    return preflight.load("demo", [*SMALL, *overrides])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "its inputs are image; .*'sparse' among data.inputs"),
        ([*SPARSE, "data.targets=[mask]", "eval.monitor=iou"], "trained to predict mask, not depth"),
    ],
)
def test_a_recipe_that_completes_nothing_is_one_clear_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        completion.check(made(*overrides), where="x")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_sparse_is_refused_before_its_data_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its inputs are image"):
        command.main([str(saved(tmp_path)), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["-1", "1.5", "many"])
def test_a_wrong_number_is_refused(path: Path, given: str) -> None:
    with pytest.raises(UsageError, match="no number of samples"):
        command.main([str(path), f"--samples={given}"])


def panel(*values: float) -> plots.Panel:
    return plots.Panel("rmse", [plots.PlotLine("rmse", (0, 5, 500)[: len(values)], values, values, values)])


def heights(image: Any) -> list[int]:
    """(H,W,3) -> rows of the middles of the dots from left to right."""
    dots = (image == (31, 119, 180)).all(axis=2).astype(np.uint8)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(cv2.erode(dots, np.ones((4, 4), np.uint8)))
    return [round(box[1] + box[3] / 2) for box in sorted(boxes[1:].tolist())]


def test_the_plot_has_a_dot_for_each_score_and_lower_is_lower() -> None:
    first, middle, last = heights(plots.draw_curves([panel(1.0, 0.5, 0.25)], x_label="samples"))
    assert first < middle < last
    assert (middle - first) == pytest.approx(2 * (last - middle), abs=3)


def test_the_plot_leaves_out_what_could_not_be_scored() -> None:
    image = plots.draw_curves([panel(1.0, float("nan"), 0.5)], x_label="samples")
    assert len(heights(image)) == 2
    nothing = plots.draw_curves([panel(float("nan"))], x_label="samples")
    assert nothing.shape == (plots.HEIGHT, plots.WIDTH, 3) and not heights(nothing)


def test_a_timeline_has_a_panel_below_the_other_for_each_unit() -> None:
    steps = plots.PlotLine("replicas", (0, 10, 20), (1, 4, 1), steps=True)
    gap = plots.PlotLine("median", (1, 11, 19), (0.5, float("nan"), 0.7))
    image = plots.draw_timeline([plots.Panel("Replicas", [steps]), plots.Panel("Latency", [gap])])
    assert image.shape == (2 * plots.LOW, plots.LONG, 3)
    drawn = np.ptp(image, axis=2) > 40  # the lines are the only colours
    assert drawn[: plots.LOW].any() and drawn[plots.LOW :].any()
