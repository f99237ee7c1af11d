"""Fills against what they promise, and regions against maps drawn by hand."""

from __future__ import annotations

import math

import pytest
import torch

from depthray.evaluation.alignment import ComparedDepth
from depthray.evaluation.completion.fills import JointBilateralFill, SpreadSamples
from depthray.evaluation.completion.regions import NAMES, REGIONS, distances, edges, region_scores, regions


def halves(height: int = 48, width: int = 64, samples: int = 60) -> dict[str, torch.Tensor]:
    """A black surface 1 m away next to a white one at 4 m, and samples of both."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.ones(1, 1, height, width)
    truth[..., 27:] = 4.0
    sparse = torch.zeros_like(truth)
    places = torch.randperm(height * width, generator=generator)[:samples]
    sparse.view(-1)[places] = truth.view(-1)[places]
    return {"depth": truth, "sparse": sparse, "image": (truth > 2).float().expand(-1, 3, -1, -1).contiguous()}


def rmse(predicted: torch.Tensor, truth: torch.Tensor) -> float:
    return float((predicted - truth).square().mean().sqrt())


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (1, 5)])
@pytest.mark.parametrize("fill", [SpreadSamples, JointBilateralFill])
def test_samples_are_kept_and_all_else_is_between_them(fill: type[torch.nn.Module], size: tuple[int, int]) -> None:
    batch = halves(*size, samples=max(2, size[0] * size[1] // 40))
    depth = fill()(batch)["depth"]
    sampled = batch["sparse"] > 0
    assert depth.shape == batch["sparse"].shape
    assert torch.equal(depth[sampled], batch["sparse"][sampled])
    assert batch["sparse"][sampled].min() - 1e-5 <= depth.min() <= depth.max() <= batch["sparse"].max() + 1e-5


@pytest.mark.parametrize("fill", [SpreadSamples, JointBilateralFill])
def test_without_samples_there_is_nothing_to_fill_with(fill: type[torch.nn.Module]) -> None:
    batch = halves(samples=0)
    assert not fill()(batch)["depth"].any()


def test_colours_keep_two_surfaces_apart() -> None:
    batch = halves()
    blurred, sharp = (fill()(batch)["depth"] for fill in (SpreadSamples, JointBilateralFill))
    assert rmse(sharp, batch["depth"]) < 0.35 * rmse(blurred, batch["depth"])


def test_of_one_colour_the_bilateral_fill_is_about_as_good_as_spreading() -> None:
    batch = halves()
    batch["depth"] = (1 + torch.arange(64) / 32).expand(1, 1, 48, 64)
    batch |= {"sparse": torch.where(batch["sparse"] > 0, batch["depth"], 0.0), "image": torch.full((1, 3, 48, 64), 0.5)}
    blurred, smooth = (fill()(batch)["depth"] for fill in (SpreadSamples, JointBilateralFill))
    assert rmse(smooth, batch["depth"]) < 1.3 * rmse(blurred, batch["depth"])


def test_distances_are_to_the_nearest_sample() -> None:
    sparse = torch.zeros(2, 1, 5, 9)
    sparse[0, 0, 2, 1] = 3.0
    found = distances(sparse)
    assert found[0, 0, 2].tolist() == pytest.approx([1, 0, 1, 2, 3, 4, 5, 6, 7], abs=1e-3)
    assert math.isinf(found[1].min())


def test_regions_of_a_truth_of_twice_the_size() -> None:
    sparse = torch.zeros(1, 1, 20, 40)
    sparse[0, 0, 10, 5] = 2.0
    truth = torch.full((1, 1, 40, 80), 2.0)
    truth[..., 60:] = 5.0
    found = regions(sparse, truth)
    assert set(found) == set(REGIONS)
    assert found["sampled"].nonzero()[:, 2:].tolist() == [[20, 10], [20, 11], [21, 10], [21, 11]]
    assert torch.equal(found["unsampled"], ~found["sampled"])
    bands = torch.stack([found[name] for name in REGIONS if "px" in name]).sum(dim=0)
    assert torch.equal(bands.bool(), found["unsampled"]) and bands.max() == 1
    assert found["edges"].any(dim=2)[0, 0].nonzero().flatten().tolist() == [58, 59, 60, 61]


def test_an_edge_is_a_step_between_measured_pixels() -> None:
    truth = torch.full((1, 1, 6, 12), 2.0)
    truth[..., 6:] = 2.1  # too small a step
    truth[..., 9:] = 0.0  # unmeasured
    assert not edges(truth).any()
    truth[..., 6:9] = 2.5
    assert edges(truth).any()


def test_scores_of_regions() -> None:
    sparse = torch.zeros(2, 1, 4, 30)
    sparse[0, 0, 0, 0] = 2.0
    truth = torch.full((2, 1, 4, 30), 2.0)
    prediction = truth.clone()
    prediction[0, 0, 0, 0] += 0.5
    prediction[..., 20:] += 1.0
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[..., 25:] = False
    prediction[..., 25:] = 99.0
    found = region_scores({"sparse": sparse}, ComparedDepth(prediction, truth, valid))
    assert tuple(found) == NAMES
    assert found["rmse sampled"].tolist() == pytest.approx([0.5, math.nan], nan_ok=True)
    far = (distances(sparse)[:1, ..., :25] > 10).sum()
    assert found["abs_rel >10 px"][0] == pytest.approx(0.5 * 20 / far.item())
    assert found["rmse 1-2 px"].tolist() == pytest.approx([0.0, math.nan], nan_ok=True)
    assert found["rmse edges"].isnan().all()
