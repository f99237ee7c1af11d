"""Metrics against float64 NumPy oracles, and their independence of order and grouping."""

import math

import numpy as np
import pytest
import torch

from depthray.config import metric_names
from depthray.evaluation import metrics

SPANS = [(0, math.inf), (0, 1), (1, 3), (3, 5), (5, math.inf)]


def frames(count=3, height=8, width=11, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.2, 9.5, (count, 1, height, width)).astype(np.float32)
    prediction = (truth * rng.uniform(0.5, 1.8, truth.shape)).astype(np.float32)
    return prediction, truth, rng.random(truth.shape) < 0.8


def sums(prediction, truth, valid):
    return metrics.image_sums(torch.tensor(prediction), torch.tensor(truth), valid=torch.tensor(valid))


def oracle(prediction, truth):
    """One image's valid pixels, by the definitions of the BTS line of papers."""
    p, d = prediction.astype(np.float64), truth.astype(np.float64)
    log, ratio = np.log(p) - np.log(d), np.maximum(p / d, d / p)
    return {
        "abs_rel": np.mean(np.abs(d - p) / d),
        "sq_rel": np.mean((d - p) ** 2 / d),
        "rmse": np.sqrt(np.mean((d - p) ** 2)),
        "rmse_log": np.sqrt(np.mean(log**2)),
        "log10": np.mean(np.abs(np.log10(d) - np.log10(p))),
        "silog": 100 * np.std(log),
        "mae": np.mean(np.abs(d - p)),
        "irmse": np.sqrt(np.mean((1e3 / d - 1e3 / p) ** 2)),
        "imae": np.mean(np.abs(1e3 / d - 1e3 / p)),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
    }


def oracle_mean(prediction, truth, valid, span):
    low, high = span
    kept = valid & (truth >= low) & (truth < high)
    images = [oracle(p[k], d[k]) for p, d, k in zip(prediction, truth, kept, strict=True) if k.any()]
    return {name: np.mean([image[name] for image in images]) for name in metrics.METRICS}


@pytest.mark.parametrize("row", range(5))
def test_scores_are_the_oracle(row):
    prediction, truth, valid = frames()
    expected = oracle_mean(prediction, truth, valid, SPANS[row])
    assert metrics.scores(sums(prediction, truth, valid), row) == pytest.approx(expected, rel=1e-11)


def test_layout_of_the_sums():
    table = sums(*frames())
    assert table.dtype == torch.float64
    assert table.shape == (3, len(metrics.RANGES), len(metrics.SUMS)) and len(SPANS) == len(metrics.RANGES)
    assert torch.equal(table[:, 0, 0], torch.tensor(frames()[2]).sum(dim=(1, 2, 3)).double())


def test_a_limit_belongs_to_the_range_above_it():
    truth = np.array([0.999, 1.0, 3.0, 5.0, 9.0], dtype=np.float32).reshape(1, 1, 1, 5)
    counts = sums(truth, truth, truth > 0)[0, :, 0]
    assert counts.tolist() == [5, 1, 1, 1, 2]


def test_delta_is_strict():
    truth = np.full((1, 1, 1, 2), 4.0, dtype=np.float32)
    prediction = np.array([5.0, np.nextafter(np.float32(5), np.float32(4))]).astype(np.float32).reshape(truth.shape)
    assert metrics.scores(sums(prediction, truth, truth > 0))["delta1"] == 0.5


def test_perfect_prediction():
    _, truth, valid = frames()
    scores = metrics.scores(sums(truth, truth, valid))
    assert scores == {name: float(name.startswith("delta")) for name in metrics.METRICS}


def test_inverse_depth_is_in_1_per_km():
    truth = np.full((1, 1, 2, 2), 2.0, dtype=np.float32)
    scores = metrics.scores(sums(truth * 2, truth, truth > 0))
    assert scores["irmse"] == scores["imae"] == 250


def test_mean_over_images_not_over_pixels():
    truth = np.full((2, 1, 4, 4), 2.0, dtype=np.float32)
    prediction = truth + np.array([0.5, 1.5], dtype=np.float32).reshape(2, 1, 1, 1)
    valid = np.ones(truth.shape, bool)
    valid[1, :, 1:] = False
    table = sums(prediction, truth, valid)
    assert metrics.scores(table)["rmse"] == 1.0
    assert metrics.scores(table, pooled=True)["mae"] == (16 * 0.5 + 4 * 1.5) / 20
    assert metrics.scores(table, pooled=True)["rmse"] == pytest.approx(np.sqrt((16 * 0.25 + 4 * 2.25) / 20), rel=1e-12)


@pytest.mark.parametrize("row", range(5))
def test_image_without_valid_pixels_does_not_count(row):
    prediction, truth, valid = frames()
    valid[1] = False
    truth[1], prediction[1] = 0, np.nan
    some = metrics.scores(sums(prediction[::2], truth[::2], valid[::2]), row)
    assert metrics.scores(sums(prediction, truth, valid), row) == some


def test_nothing_valid_is_not_a_number():
    prediction, truth, valid = frames(count=1)
    assert all(math.isnan(value) for value in metrics.scores(sums(prediction, truth, np.zeros_like(valid))).values())


@pytest.mark.parametrize("pooled", [False, True])
def test_a_counted_frame_whose_metric_is_no_number_is_the_worst_and_not_left_out(pooled):
    prediction, truth, valid = frames()
    prediction[1, 0, 0] = np.nan
    valid[1, 0, 0] = True
    scores = metrics.scores(sums(prediction, truth, valid), pooled=pooled)
    for name in ("abs_rel", "rmse", "rmse_log", "log10", "silog", "irmse"):
        assert scores[name] == math.inf, name
    assert 0 < scores["delta1"] < 1  # a pixel that is no number is no hit
    broken = np.full((1, len(metrics.SUMS)), math.nan)
    broken[:, 0] = 5
    assert all(
        metric_names.rank_key(*pair) in (0, math.inf) for pair in metrics.average(metrics.image_scores(broken)).items()
    )


def test_order_does_not_change_a_bit():
    table = sums(*frames(count=40)).numpy()
    rng = np.random.default_rng(1)
    for pooled in (False, True):
        scores = [metrics.scores(table[rng.permutation(40)], pooled=pooled) for _ in range(20)]
        assert all(each == scores[0] for each in scores)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_batches_do_not_change_a_bit(size):
    complete = frames(count=7, height=48, width=64)
    parts = [sums(*(each[i : i + size] for each in complete)) for i in range(0, 7, size)]
    assert torch.equal(torch.cat(parts), sums(*complete))


def test_threads_do_not_change_a_bit():
    complete, threads = frames(count=2, height=240, width=320), torch.get_num_threads()
    result = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        result.append(sums(*complete))
    torch.set_num_threads(threads)
    assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])
