"""The benchmark of focal lengths: what is right has ratios of 1, and its pictures have the cameras they claim."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from paths import ROOT
from scripts import load_script

from depthray.__main__ import main
from depthray.data.rendering.render import render_frame


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script("canonical_focal", ROOT / "benchmarks")


def test_true_depth_is_the_same_through_every_focal_length(script: Any) -> None:
    frame: Any = render_frame(20, 0, height=96, width=128)
    pictures = [script.zoomed(frame, factor) for factor in script.FACTORS]
    focal = [picture["intrinsics"][0, 0] / frame["intrinsics"][0, 0] for picture in pictures]
    assert focal == pytest.approx(script.FACTORS, rel=0.02)
    assert {picture["image"].shape for picture in pictures} == {(67, 90, 3)}
    answers = iter([picture["depth"] for picture in pictures])
    data = SimpleNamespace(min_depth=1e-3, max_depth=10.0)
    exact: Any = SimpleNamespace(predict=lambda image, camera: next(answers), recipe=SimpleNamespace(data=data))
    found = script.compare(exact, frame)
    assert [each.ratio for each in found] == pytest.approx([1, 1, 1], abs=0.005)
    assert max(each.error for each in found) < 0.02  # interpolated across edges


def test_it_compares_two_runs(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rooms = tmp_path / "rooms"
    assert main(["data", "render", str(rooms), "--frames", "4", "--size", "64", "96", "--layout", "folder"]) == 0
    keys = {"a": ["data.canonical_focal=80"], "b": []}
    runs = [write_checkpoint(tmp_path / name, *overrides) for name, overrides in keys.items()]
    script.main([*map(str, runs), "--data", str(rooms), "--split", "all", "--frames", "2"])
    printed = capsys.readouterr().out
    assert "2 frames of" in printed and "(wanted: 3 % with)" in printed
    with_camera, without = (
        np.array([float(line.split("|")[3]) for line in printed.splitlines() if line.startswith(f"| {name} ")])
        for name in ("with", "without")
    )
    # The same weights: what the one says in metres of its camera, the other says in those of none.
    assert with_camera / without == pytest.approx([0.7, 1.0, 1.4], rel=0.02)
