"""`depthray new` writes files that keep the contracts, and `python -m depthray.testing` says what does not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from own_package import PROTOCOL, forget

from depthray.__main__ import main
from depthray.testing.__main__ import main as check
from depthray.testing.new import KINDS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget(monkeypatch, tmp_path)
    return tmp_path


def pairs(folder: Path) -> Path:
    """2 scenes of 2 frames, as the example of a data set form reads them."""
    for number in range(4):
        scene = folder / f"scene{number // 2}"
        scene.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(scene / f"{number}.png"), np.full((24, 32, 3), 40 * number, np.uint8))
        np.save(scene / f"{number}.npy", np.full((24, 32), 1 + number, np.float32))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_keeps_its_contract(kind: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", kind, "my_own"]) == 0
    _, command, use = capsys.readouterr().out.splitlines()
    arguments = command.partition("depthray.testing ")[2].replace("FOLDER", str(pairs(home / "frames"))).split()
    assert check(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 6 and all(line.startswith("ok    ") for line in lines)
    assert "./my_own.py" in use and "own_" not in (home / "my_own.py").read_text().replace("my_own", "")


def test_a_protocol_of_ones_own_is_checked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "rules.py").write_text(PROTOCOL.lstrip())
    assert check(["./rules.py:NEAR"]) == 0
    assert capsys.readouterr().out == "ok    a perfect prediction has no error\n"


BROKEN_NET = """
import torch
from torch import nn


class Broken(nn.Module):
    stride = 1

    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs
        self.layer, self.idle_layer = nn.Conv2d(3, 1, 3), nn.Linear(2, 2)

    def forward(self, batch):
        return {"depth": self.layer(batch["image"]).exp()}


def build(*, inputs=("image",)):
    return Broken(inputs)
"""
BROKEN_LOSS = """
def mine(depth, truth, *, valid):
    return ((depth - truth) * valid).abs().mean(dim=(1, 2, 3))
"""


@pytest.mark.parametrize(
    ("name", "text", "faults"),
    [
        (
            "./net.py",
            BROKEN_NET,
            ["depth of images (64, 64) is (2, 1, 62, 62), not (2, 1, 64, 64)", "no gradient reaches idle_layer.weight"],
        ),
        (
            "./loss.py:mine",
            BROKEN_LOSS,
            ["depends on pixels that are not valid"],
        ),
    ],
)
def test_what_breaks_a_contract_is_said(
    name: str, text: str, faults: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / name.partition(":")[0]).write_text(text)
    assert check([name]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL  ")]
    assert all(any(fault in line for line in failed) for fault in faults), failed


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["./nothing.py"], "./nothing.py: no file nothing.py"),
        (["mypkg.net"], "Python finds no module 'mypkg.net'"),
        (["./empty.py"], "has neither 'build' (a network) nor 'open_source'"),
        (["./empty.py:x"], "has no 'x'"),
        (["./empty.py", "--daata=x"], "(did you mean '--data'?); see python -m depthray.testing --help"),
        ([], "the following arguments are required: name; see python -m depthray.testing --help"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    arguments: list[str], line: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "empty.py").write_text("")
    assert check(arguments) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert line in printed


@pytest.mark.parametrize("arguments", [["model", "a-b"], ["model", "class"], ["model", "taken"], ["modle", "mine"]])
def test_a_name_that_cannot_be_is_refused(arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "taken.py").write_text("")
    assert main(["new", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in home.iterdir()] == ["taken.py"]
