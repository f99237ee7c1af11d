"""The benchmark of few points: it corrects a scale that is wrong and counts what it does to one that is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from depthray.evaluation.calibrating.log_line import FramePairs


def frames(factor: float) -> list[FramePairs]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(10):
        predicted = np.log(rng.uniform(0.7, 8.0, 200))
        made.append(FramePairs(f"f{number}", "s", predicted, predicted + np.log(factor) + rng.normal(0, 0.2, 200)))
    return made


def test_what_is_wrong_is_corrected_and_what_is_right_seldom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_points = load_script("few_points", Path(__file__).parents[2] / "benchmarks")
    monkeypatch.setattr(few_points, "_pairs", lambda _args: [frames(0.7), frames(0.72)])
    few_points.main(["run", "--fit", "early", "--score", "later", "--draws", "60"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| as", "| the"))]
    (wrong, right) = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert wrong[0] == "as measured" and right[0] == "the scale is right"
    corrected, mean = (float(wrong[place].removesuffix(" %")) for place in (1, 2))
    assert corrected > 90 and 75 < mean <= 101
    assert float(right[1].removesuffix(" %")) <= 15 and right[2] == ""
