"""The table of what works where in docs/evaluation.md: what it says is refused is, and what it names exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import MASKED, write_checkpoint
from exports import write_export

import depthray
from depthray.__main__ import main
from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import DepthrayError
from serve.http import query
from serve.settings import ModelSettings

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
SMALL = ("data.size=32,64",)
SURE = ("model.uncertainty=laplace", "loss.laplace_nll=0.3")
SPARSE = ("data.inputs=[image,sparse]", "data.sparse.samples=50")


def table() -> list[list[str]]:
    """The rows of the table, a cell each."""
    text = PAGE.read_text().split("## What works where")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Networks, an export and a photograph."""
    import cv2

    folder = tmp_path_factory.mktemp("runs")
    (folder / "photos").mkdir()
    assert cv2.imwrite(str(folder / "photos" / "x.png"), np.full((32, 64, 3), 90, np.uint8))
    made = {"mono": write_checkpoint(folder / "mono", *SMALL), "photos": folder / "photos", "out": folder / "out"}
    made["completion"] = write_checkpoint(folder / "completion", *SMALL, *SPARSE)
    made["sure"] = write_checkpoint(folder / "sure", *SMALL, *SPARSE, *MASKED, *SURE)
    return made | {"export": write_export(folder / "export", spread="flip")}


def test_every_flag_function_and_setting_in_it_exists() -> None:
    head, _, *rows = table()
    assert head[1:] == ["command line", "Python", "service", "after export", "completion"]
    words = {word for row in rows for cell in row for word in re.findall(r"`([^`]+)`", cell)}
    commands = {
        "predict": "predicting.predict_flags",
        "evaluate": "evaluate",
        "export": "export",
        **{name: f"scoring.{name}" for name in ("calibrate", "robust", "compare", "card")},
    }
    flags: set[str] = set()
    for module in commands.values():
        parser: CommandParser = import_module(f"depthray.cli.{module}").build_parser()
        flags |= {option for action in parser._actions for option in action.option_strings}
    named = {flag for word in words for flag in re.findall(r"--[a-z-]+", word)}
    assert named - {"--not-worse-on"} <= flags and len(named) > 8
    assert all(hasattr(depthray, word.split(".")[1]) for word in words if word.startswith("depthray."))
    assert {"flip", "confidence"} <= {*ModelSettings.model_fields}  # the settings that it means
    planes = {word.split("=")[1] for word in words if word.startswith("plane=")}
    assert planes == {"confidence", "sigma", "valid"} <= {*query.CHOICES["plane"]}


REFUSED = [
    (["calibrate", "{export}"], "calibrate the checkpoint and export that"),
    (["predict", "{export}", "{photos}", "--confidence", "flip"], "has that of a spread already"),
    (["predict", "{completion}", "{photos}"], "this network needs --sparse as well"),
    (["predict", "{completion}", "{photos}", "--scales", "0.5"], "scales: this network reads sparse"),
    (["predict", "{completion}", "{photos}", "--tiles", "2"], "tiles: this network reads sparse"),
    (["evaluate", "{completion}", "eval.tiles=2"], "tiles: this network reads sparse"),
    (["robust", "{completion}", "--only", "crop"], "crop is of photographs alone"),
    (["robust", "{completion}", "--clip", "x.mp4"], "a clip has photographs alone"),
    (
        ["predict", "--url", "http://x", "{photos}", "--confidence", "flip"],
        "--confidence cannot be combined with --url",
    ),
    (["predict", "--url", "http://x", "{photos}", "--tiles", "2"], "--tiles cannot be combined with --url"),
    (["completion", "{mono}"], "takes a checkpoint trained with 'sparse'"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_it_says_is_refused_is_one_line(
    runs: dict[str, Path], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(**runs) for word in words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("depthray: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not runs["out"].exists()


@pytest.mark.parametrize(
    "options",
    [{}, {"confidence": "flip"}, {"flip": True}, {"ensemble": True}],
    ids=["own", "mirrored", "flips", "other"],
)
def test_completion_has_confidence_and_a_mask_by_each_of_them(runs: dict[str, Path], options: dict[str, Any]) -> None:
    given = {**options, "ensemble": [runs["sure"]]} if "ensemble" in options else options
    rgb, sparse = np.full((32, 64, 3), 90, np.uint8), np.zeros((32, 64), np.float32)
    sparse[4::8, 4::8] = 2.0
    depth = depthray.load(runs["sure"], **given).predict(rgb, sparse=sparse)
    assert depth.sigma is not None and depth.confidence is not None and depth.valid is not None
    with pytest.raises(DepthrayError, match="sparse"):
        depthray.load(runs["sure"], **given).predict(rgb)
