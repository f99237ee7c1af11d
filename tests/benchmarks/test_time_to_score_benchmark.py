"""benchmarks/time_to_score.py trains both sides and gives the ratio of their minutes, on a few small frames."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script

from depthray.__main__ import main as depthray

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["data.size=32,32", "train.epochs=2", "train.batch_size=4", "model.encoder=tiny", "curriculum.sizes=[]"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("time_to_score", BENCHMARKS)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames") / "rooms"
    words = ["data", "render", str(folder), "--layout", "folder", "--frames", "32", "--size", "48", "64"]
    assert depthray(words) == 0
    return folder


def run(script: ModuleType, frames: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    command = ["time_to_score.py", "--data", str(frames), "--same-network", *words, "unet-resnet34", *SMALL]
    monkeypatch.setattr(sys, "argv", command)
    code: int = script.main()
    return code


def test_both_sides_are_scored_until_they_are_there(
    script: ModuleType, frames: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, frames, monkeypatch, "--reach", "99") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [["depthray", "epoch", "1"], ["plain", "epoch", "1"]]
    assert "times as many" in lines[2] and "more than" not in lines[2]


def test_a_score_out_of_reach_is_said(
    script: ModuleType, frames: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, frames, monkeypatch, "--reach", "0") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "unet-resnet34 did not come to abs_rel 0"


def test_a_side_that_takes_too_long_is_ended(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.watch("plain", iter([0.9, 0.8, 0.1]), reach=0.3, most=0.0) is None
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert script.watch("plain", iter([0.9, 0.8, 0.1]), reach=0.3) > 0
