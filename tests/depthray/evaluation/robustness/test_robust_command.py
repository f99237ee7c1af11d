"""`depthray robust`: networks on the same corrupted frames, the table, the JSON and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from checkpoints import write_checkpoint
from videos import write_video

import depthray
from depthray.__main__ import main

SMALL = ["data.size=32,64", "data.frames=16", "data.val_fraction=0.5"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    sparse = ["data.inputs=[image,sparse]", "data.sparse.samples=50"]
    return [write_checkpoint(folder / "a", *SMALL), write_checkpoint(folder / "b", *SMALL, *sparse)]


def test_the_report_holds_what_was_measured(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, names = tmp_path / "out", ["noise", "focal", "dropout", "crop"]
    assert main(["robust", *map(str, checkpoints), "--only", *names, "--frames", "6", "--out", str(out)]) == 0
    report = json.loads((out / "robustness.json").read_text())
    assert report["frames"] == "6" and [len(each["corruptions"]) for each in report["networks"]] == [2, 3]
    clean = {metric["metric"]: metric["after"]["mean"] for metric in report["networks"][0]["clean"]}
    for found in report["networks"][0]["corruptions"].values():
        scores = [metrics[0]["after"]["mean"] for metrics in found["by_strength"]]
        assert len(scores) == 5 and all(metrics[0]["before"]["mean"] for metrics in found["by_strength"])
        rise = sum(step * (score - clean["abs_rel"]) for step, score in enumerate(scores, 1)) / 55
        assert found["slope"] == pytest.approx(rise / clean["abs_rel"])
        assert len(found["worst"]) == 3
    assert [len(each.get("crops", [])) for each in report["networks"]] == [5, 0]  # the second reads sparse depth too
    text = (out / "robustness.md").read_text()
    assert text.strip() in capsys.readouterr().out and "## a/" in text and "| dropout" in text
    picture = cv2.imread(str(out / "robustness.png"))
    assert picture is not None and picture.shape[1] == 660


def test_crops_and_a_clip_alone(checkpoints: list[Path], tmp_path: Path) -> None:
    out, rng = tmp_path / "out", np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 255, (16, 40, 3), np.uint8), (160, 64))
    pictures = [np.ascontiguousarray(wide[:, 2 * step : 128 + 2 * step]) for step in range(8)]
    clip = write_video(tmp_path / "walk.mp4", pictures)
    words = ["--only", "crop", "--frames", "3", "--clip", str(clip), "--clip-frames", "5", "--out", str(out)]
    assert main(["robust", str(checkpoints[0]), *words]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["consistency.png", "robustness.json", "robustness.md"]
    (network,) = json.loads((out / "robustness.json").read_text())["networks"]
    assert len(network["flicker"]["pairs"]) + network["flicker"]["cuts"] == 4
    text = (out / "robustness.md").read_text()
    assert "## Crops" in text and "## Flicker on walk.mp4" in text and "strengths 1 to 5" not in text
    picture = cv2.imread(str(out / "consistency.png"))
    assert picture is not None and picture.shape[1] == 4 * 320


def test_what_cannot_be_measured_of_a_network_is_said(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of a canonical camera needs that of each picture, and parts of them have none."""
    canonical = write_checkpoint(tmp_path / "canonical", *SMALL, "data.canonical_focal=60")
    for path, why in ((canonical, "image and needs the camera of each"), (checkpoints[1], "image, sparse")):
        words = ["--only", "noise", "crop", "--frames", "2", "--out", str(tmp_path / path.parents[1].name / "out")]
        assert main(["robust", str(path), *words]) == 0
        assert f"crop is left out: this network reads {why}" in capsys.readouterr().out
    assert main(["robust", str(canonical), "--only", "crop", "dropout", "--out", str(tmp_path / "nothing")]) == 2
    assert "crop is of photographs alone" in capsys.readouterr().err and not (tmp_path / "nothing").exists()


def test_frames_as_they_are_score_as_in_an_evaluation(checkpoints: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["robust", str(checkpoints[0]), "--only", "jpeg", "--out", str(out)]) == 0
    (network,) = json.loads((out / "robustness.json").read_text())["networks"]
    alone = depthray.evaluate(checkpoints[0])
    assert network["clean"][0]["after"]["mean"] == pytest.approx(alone.scores["abs_rel"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--only", "nois"], 2, "--only nois: no such corruption (did you mean 'noise'?)"),
        (["--data", "/nowhere"], 3, "/nowhere"),
        (["model.encoder=tiny"], 2, "an evaluation can override data.* and eval.* only"),
        (["--frames", "0"], 2, "--frames 0: at least 1"),
        (["--clip", "x.mp4", "--clip-frames", "1"], 2, "--clip-frames 1: at least 2"),
        (["--only", "crop", "--clip", "nowhere.mp4"], 3, "nowhere.mp4: no such file"),
        (["--only", "crop", "--clip", "camera:0"], 2, "give a file"),
    ],
)
def test_mistakes_are_one_line(
    checkpoints: list[Path], words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["robust", str(checkpoints[0]), *words]) == code
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
