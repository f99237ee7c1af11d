"""What the benchmarks of comparisons make of scores, without training: blends of a known loss, and ablations."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scripts import load_script

from depthray.evaluation.comparing.paired import FrameScores

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def scores(values: np.ndarray, names: tuple[str, ...] = ("abs_rel",)) -> FrameScores:
    """AbsRel of 24 frames of 12 scenes."""
    table = np.stack([values] * len(names), axis=1)
    ids, scenes = zip(*((f"{number}", f"s{number // 2}") for number in range(24)), strict=True)
    return FrameScores(ids, scenes, names, table, np.empty((24, 0)))


@pytest.fixture(scope="module")
def comparison() -> ModuleType:
    return load_script("comparison", BENCHMARKS)


def test_a_blend_is_as_much_worse_as_it_is_to_be(comparison: ModuleType) -> None:
    values = np.random.default_rng(0).uniform(0.1, 0.3, 24)
    grades = [scores(values * (1 + share)) for share in (0.0, 0.02, 0.1, 0.3, 0.9)]
    found = comparison.worse(grades, 1.05 * values.mean())
    np.testing.assert_allclose(found.table[:, 0], 1.05 * values)
    np.testing.assert_allclose(comparison.worse(grades, 99.0).table, grades[-1].table)  # it is never so bad
    dip = [grades[1], grades[0], *grades[2:]]  # a network that exaggerates gains by a little of it
    np.testing.assert_allclose(comparison.worse(dip, 1.05 * values.mean()).table[:, 0], 1.05 * values)


def test_pairs_are_counted(comparison: ModuleType) -> None:
    draws = np.random.default_rng(0)
    base = draws.uniform(0.1, 0.3, 24)
    grades = [
        [
            scores(base * (1 + 0.01 * seed) * (1 + share) + draws.normal(0, 0.001, 24))
            for share in (0, 0.1, 0.2, 0.4, 0.8)
        ]
        for seed in range(3)
    ]
    found = dict(comparison.verdicts(grades))
    assert len(found["two seeds"]) == 3 and len(found["one network, blended to be 5 % worse"]) == 3
    assert set(found["one network, blended to be 5 % worse"]) == {"worse"}
    assert found["another seed, blended to be 5 % worse"] == ["worse"] * 3


def test_a_blend_moves_towards_the_median(comparison: ModuleType) -> None:
    class Ramp(torch.nn.Module):
        inputs, stride = ("image",), 1

        def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"depth": batch["image"][:, :1] + 1}

    image = torch.arange(9.0).view(1, 1, 3, 3).expand(1, 3, 3, 3)
    half = comparison.Blended(Ramp(), 0.5)({"image": image})["depth"]
    torch.testing.assert_close(half, ((image[:, :1] + 1) * 5).sqrt())


def test_an_ablation_is_of_means_over_seeds() -> None:
    semantics = load_script("semantics", BENCHMARKS)
    names = ("rmse", "abs_rel", "delta1")
    base = np.random.default_rng(0).uniform(0.1, 0.3, 24)
    with_ids = [scores(base * factor, names) for factor in (0.8, 0.9, 1.0)]
    without, found = semantics.rows({"image, sparse": [scores(base, names)] * 3, "+ semantics": with_ids})
    assert without[3] == "" and found[3].startswith("-10.0 %") and found[3].endswith("better")
    assert found[2] == f"{0.8 * base.mean():.4f} to {base.mean():.4f}"
