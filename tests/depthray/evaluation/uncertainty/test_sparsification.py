"""Sparsification, coverage and reliability against brute force, and of networks that know what they do not know."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scoring import BATCH, COUNT, DATA, Net, Rooms
from torch import nn

from depthray.data.loader import eval_batches
from depthray.evaluation import report
from depthray.evaluation.alignment import ComparedDepth
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.protocols import LEGACY_001, PLAIN
from depthray.evaluation.uncertainty import confidence_report, confidence_scores
from depthray.evaluation.uncertainty.confidence_scores import SCORES, means, pooled_drop, table
from depthray.evaluation.uncertainty.sparsification import of_frames

CPU = torch.device("cpu")
DRAW = {
    "laplace": lambda rng, size: rng.laplace(0, 1 / math.sqrt(2), size),
    "gaussian": lambda rng, size: rng.normal(size=size),
}


def made(family="laplace", *, factor=1.0, constant=False, size=(100, 120), count=2):
    """Frames whose errors of ln depth are drawn with deviations that the network knows, times a factor."""
    rng = np.random.default_rng(0)
    shape = (count, 1, *size)
    truth = rng.uniform(0.5, 6, shape)
    sigma = np.exp(rng.uniform(np.log(0.02), np.log(0.4), shape))
    depth = truth * np.exp(sigma * DRAW[family](rng, shape))
    valid = rng.random(shape) < 0.8
    known = np.full(shape, 0.15) if constant else sigma / factor
    predicted, measured = (torch.tensor(each, dtype=torch.float32) for each in (depth, truth))
    return ComparedDepth(predicted, measured, torch.tensor(valid)), torch.tensor(np.log(known), dtype=torch.float32)


def frames(family="laplace", **options):
    depth, log = made(family, **options)
    return of_frames(depth, log, family)


@pytest.mark.parametrize("family", list(DRAW))
def test_a_network_that_knows_its_errors_covers_what_it_says(family):
    found = means(frames(family))
    assert found["coverage68"] == pytest.approx(0.68, abs=0.01)
    assert found["coverage95"] == pytest.approx(0.95, abs=0.01)
    assert found["aurg_rmse"] > 0.5 * (found["aurg_rmse"] + found["ause_rmse"]) and found["rmse_drop"] > 0.2
    bins = np.sum([frame.bins for frame in frames(family)], axis=0)
    sure = (np.arange(100) + 0.5) / 100
    count, right, expected = (
        values.reshape(10, 10).sum(axis=1)[3:] for values in (bins[:, 0], bins[:, 1], sure * bins[:, 0])
    )
    np.testing.assert_allclose(right / count, expected / count, atol=0.05)  # in steps of a tenth, where there are any


def test_one_that_is_too_sure_covers_less_and_is_less_likely():
    found, exact = means(frames(factor=3.0)), means(frames())
    assert found["coverage68"] < 0.4 and found["nll"] > exact["nll"]
    assert found["ause_abs_rel"] == pytest.approx(exact["ause_abs_rel"], rel=1e-6)  # of the order alone


def test_a_constant_gains_nothing():
    found = means(frames(constant=True))
    assert abs(found["aurg_abs_rel"]) < 0.05 * found["ause_abs_rel"]


def test_areas_are_those_of_poggi_et_al():
    """By thresholds at percentiles, as their code has it."""
    (depth, truth, valid), log = made(count=1)
    p, t, s = (each[valid].double().numpy() for each in (depth, truth, log.exp()))
    values = {"rmse": ((p - t) ** 2, s * p, np.sqrt), "abs_rel": (np.abs(p - t) / t, s, np.asarray)}
    found = means(of_frames(ComparedDepth(depth, truth, valid), log, "laplace"))
    for name, (errors, unsure, finish) in values.items():
        areas = []
        for order in (unsure, errors):
            least = [np.percentile(-order, 100 / 50 * step) for step in range(50)]
            curve = [finish(errors[-order >= threshold].mean()) for threshold in least]
            areas.append(np.trapezoid([*curve, 0], np.arange(51) / 50))
        assert found[f"ause_{name}"] == pytest.approx(areas[0] - areas[1], rel=0.01, abs=1e-4)
        assert found[f"aurg_{name}"] == pytest.approx(finish(errors.mean()) - areas[0], rel=0.01, abs=1e-4)


def test_without_the_least_sure_fifth_of_all_frames():
    (depth, truth, valid), log = made()
    p, t, s = (each[valid].double().numpy() for each in (depth, truth, log.exp()))
    kept = np.argsort(s * p)[: round(0.8 * len(s))]
    wanted = 1 - np.sqrt(((p - t)[kept] ** 2).mean() / ((p - t) ** 2).mean())
    assert pooled_drop(np.sum([frame.widths for frame in frames()], axis=0)) == pytest.approx(wanted, abs=0.01)
    assert np.isnan(pooled_drop(np.zeros((3, 2))))


def test_ranges_are_of_the_true_depth_and_too_few_pixels_say_nothing():
    depth, log = made(count=1)
    near = ComparedDepth(depth.prediction, depth.truth, depth.valid & (depth.truth < 3))
    (frame,) = of_frames(near, log, "laplace")
    columns = dict(zip(SCORES, np.stack([table([frame], number)[0] for number in range(5)], axis=1), strict=True))
    assert np.isfinite(columns["ause_rmse"][:3]).all() and np.isnan(columns["ause_rmse"][3:]).all()
    assert frame.levels.sum(axis=1)[0] == frame.levels.sum(axis=1)[1:].sum()
    (nothing,) = of_frames(ComparedDepth(depth.prediction, depth.truth, depth.valid & False), log, "laplace")
    assert np.isnan(table([nothing])).all()


def test_a_coarser_or_broken_map_of_confidence_is_scored_too():
    depth, log = made(count=1)
    log[..., :10, :] = math.nan
    assert all(np.isfinite(value) for value in means(of_frames(depth, log[..., ::2, ::2], "laplace")).values())


class Unsure(nn.Module):
    """A network that is surer where an image is dark."""

    inputs, stride, outputs, uncertainty = ("image",), 1, ("depth", "log_sigma"), "laplace"

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, batch: Any) -> Any:
        return {**self.net(batch), "log_sigma": batch["image"].mean(dim=1, keepdim=True) - 2}


def scored(model: nn.Module, protocol=PLAIN):
    batches = eval_batches(Rooms(), range(COUNT), DATA, batch_size=BATCH)
    return evaluate(model, batches, protocol=protocol, device=CPU)


def test_an_evaluation_shows_it_in_text_json_and_a_picture(tmp_path):
    evaluation, plain = scored(Unsure()), scored(Net())
    assert evaluation.names == plain.names  # so that networks with and without can be compared
    assert {*SCORES} <= evaluation.scores().keys() and not {*SCORES} & plain.scores().keys()
    evaluation.write(tmp_path)
    text = (tmp_path / "evaluation.md").read_text()
    assert "## Confidence (laplace)" in text and "AUSE below that of a constant, RMSE" in text
    tree = json.loads((tmp_path / "evaluation.json").read_text())["confidence"]
    assert {*tree["overall"]} == {*SCORES} and len(tree["sparsification"]["rmse"]) == 50
    assert tree["overall"]["coverage95"]["low"] <= tree["overall"]["coverage95"]["mean"]
    assert [each["range"] for each in tree["ranges"]] == ["<1 m", "1-3 m", "3-5 m", ">5 m"]
    assert (tmp_path / "confidence.png").stat().st_size > 10_000
    assert "Confidence" not in report.markdown(plain.summary())
    plain.write(tmp_path / "plain")
    assert not (tmp_path / "plain" / "confidence.png").exists()


def test_a_protocol_of_other_scores_has_none():
    assert all(row.confidence is None for row in scored(Unsure(), LEGACY_001).rows)


def test_a_range_without_a_pixel_is_no_line():
    depth, log = made(count=1)
    near = ComparedDepth(depth.prediction, depth.truth, depth.valid & (depth.truth < 3))
    found = confidence_scores.summary(of_frames(near, log, "laplace"), ["a"], family="laplace")
    text = "\n".join(confidence_report.sections(found))
    assert "1-3 m" in text and ">5 m" not in text and "nan" not in text
