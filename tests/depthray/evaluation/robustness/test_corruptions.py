"""Corruptions: of the photograph alone or of all maps alike, stronger at each strength, the same for each network."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

from depthray.batch import Sample
from depthray.data.rendering import render
from depthray.evaluation.robustness.corruptions import CORRUPTIONS, DROPPED, STRENGTHS, corrupted, drop_samples

MOVED = {"rotation", "focal"}


@pytest.fixture(scope="module")
def sample() -> Sample:
    return render.render_frame(0, 3, height=240, width=320)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_strength_changes_more(sample: Sample, name: str) -> None:
    before = sample["image"].astype(np.float64)
    made = [corrupted(sample, name, strength, index=3) for strength in STRENGTHS]
    changes = [np.abs(each["image"] - before).mean() for each in made]
    assert changes[0] > 0 and changes == sorted(changes) if name not in MOVED else changes[-1] > changes[0] > 0
    assert np.array_equal(sample["image"], before), "the source's own sample stays"
    for each in made:
        assert each["image"].dtype == np.uint8 and each["image"].shape == sample["image"].shape
        assert each["depth"].dtype == np.float32
        assert name in MOVED or np.array_equal(each["depth"], sample["depth"])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_two_networks_see_the_same(sample: Sample, name: str) -> None:
    first, again, other = (corrupted(sample, name, 4, index=index) for index in (3, 3, 4))
    assert all(np.array_equal(first[key], again[key]) for key in ("image", "depth"))
    if name in ("noise", "dirt"):
        assert not np.array_equal(first["image"], other["image"]), "each frame has its own"


@pytest.mark.parametrize("name", sorted(MOVED))
def test_what_moves_moves_in_all_maps(sample: Sample, name: str) -> None:
    """Depth is where its pixel of the photograph is: drawn into the photograph, it is found there."""
    drawn = cast("Sample", {**sample, "image": np.repeat((sample["depth"] * 20)[..., None], 3, 2).astype(np.uint8)})
    moved = corrupted(drawn, name, 3, index=1)
    inside = moved["depth"] > 0
    gap = np.abs(moved["image"][..., 0] / 20 - moved["depth"])[inside]
    assert np.median(gap) < 0.06 and (gap < 0.3).mean() > 0.9
    assert set(np.unique(moved["semantics"])) <= {0, *np.unique(sample["semantics"])}
    if name == "rotation":
        assert not inside[0, 0] or not inside[0, -1], "no truth from outside of the picture"


def test_dropped_samples_are_gone_and_the_others_stay() -> None:
    sparse = torch.rand(2, 1, 40, 50) + 1
    shares = []
    for strength in STRENGTHS:
        left = drop_samples([5, 6], {"sparse": sparse}, strength)["sparse"]
        assert torch.equal(left[left > 0], sparse[left > 0])
        assert torch.equal(left[1:], drop_samples([6], {"sparse": sparse[1:]}, strength)["sparse"]), "in any batch"
        shares.append(float((left == 0).float().mean()))
    assert shares == pytest.approx(DROPPED, abs=0.03)
