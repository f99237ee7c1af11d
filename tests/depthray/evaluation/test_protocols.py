"""The protocols against figures worked out by hand."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from depthray.errors import DataError, UsageError
from depthray.evaluation import metrics, protocols
from depthray.evaluation.protocols import NYU_BTS, PLAIN, PROTOCOLS


def block(valid):
    """First and one past the last valid row and column of a rectangle without holes."""
    rows, columns = np.nonzero(valid[0, 0].numpy())
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def golden():
    """A 480x640 frame: a plane of 2 m predicted at 2.2 m, with odd pixels in and out of the crop."""
    truth, prediction = torch.full((1, 1, 480, 640), 2.0), torch.full((1, 1, 480, 640), 2.2)
    prediction[..., :45, :] = 9.0  # outside the crop
    truth[0, 0, 100, 100:104] = torch.tensor([0.0, 1e-3, 10.0, 12.0])  # not scored
    truth[0, 0, 200, 200:204], prediction[0, 0, 200, 200] = 4.0, torch.nan
    prediction[0, 0, 200, 201:204] = torch.tensor([torch.inf, -torch.inf, 50.0])
    return prediction, truth


def golden_scores(name):
    prediction, truth = golden()
    depth, valid = protocols.apply(prediction, truth, PROTOCOLS[name])
    return metrics.scores(metrics.image_sums(depth, truth, valid=valid))


def test_golden_nyu_bts():
    # 426 * 560 pixels less 4; NaN and -inf become 1 mm, inf and 50 m become 10 m.
    count, odd = 426 * 560 - 4, 2 * (4 - 0.001) + 2 * 6
    scores = golden_scores("nyu-bts")
    assert scores["mae"] == pytest.approx((0.2 * (count - 4) + odd) / count, rel=1e-6)
    assert scores["abs_rel"] == pytest.approx((0.1 * (count - 4) + odd / 4) / count, rel=1e-6)
    assert scores["delta1"] == pytest.approx((count - 4) / count, rel=1e-12)


def test_golden_plain():
    count, odd, outside = 480 * 640 - 4, 2 * (4 - 0.001) + 2 * 6, 45 * 640
    scores = golden_scores("plain")
    assert scores["mae"] == pytest.approx((0.2 * (count - 4 - outside) + 7 * outside + odd) / count, rel=1e-6)
    assert scores["delta1"] == pytest.approx((count - 4 - outside) / count, rel=1e-12)
    rmse = np.sqrt((0.04 * (count - 4 - outside) + 49 * outside + 2 * 3.999**2 + 2 * 36) / count)
    assert scores["rmse"] == pytest.approx(rmse, rel=1e-6)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (45, 471, 41, 601)), ((240, 320), (22, 235, 20, 300)), ((960, 1280), (90, 942, 82, 1202))],
)
def test_crop_of_nyu_bts_scales_with_the_image(size, expected):
    truth = torch.full((1, 1, *size), 2.0)
    assert block(protocols.apply(truth, truth, NYU_BTS)[1]) == expected


def test_plain_has_no_crop():
    truth = torch.full((2, 1, 13, 17), 2.0)
    assert protocols.apply(truth, truth, PLAIN)[1].all()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_depth_limits_are_strict(protocol):
    truth = torch.full((1, 1, 480, 1280), 2.0)
    low, high = protocol.min_depth, protocol.max_depth
    around = torch.tensor([0, low, high, torch.inf, torch.nan, -1.0, low + 1e-4, high * 0.9999])
    truth[0, 0, 400, 300:308] = around
    valid = protocols.apply(truth, truth, protocol)[1]
    assert valid[0, 0, 400, 300:308].tolist() == [False] * 6 + [True] * 2


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_perfect_prediction_is_perfect_and_a_broken_one_is_finite(protocol):
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand((1, 1, 375, 1242), generator=generator) * 8 + 0.5
    for prediction, perfect in ((truth, True), (torch.full_like(truth, torch.nan), False)):
        compared = protocols.compare(prediction, truth, protocol)
        scores = metrics.scores(metrics.image_sums(compared.prediction, compared.truth, valid=compared.valid))
        assert all(np.isfinite(list(scores.values())))
        if perfect and not protocol.size:
            assert scores["rmse"] < 2e-6 and scores["delta1"] == 1


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("nyu-eigen-filled", (480, 640), (20, 460, 24, 616)),  # 440 x 592
        ("nyu-s2d", (480, 640), (6, 234, 8, 312)),  # 228 x 304 of 240 x 320
        ("kitti-garg", (375, 1242), (153, 371, 44, 1197)),
        ("kitti-garg-kb", (375, 1242), (166, 372, 56, 1185)),
        ("kitti-garg-kb", (352, 1216), (143, 349, 43, 1172)),
    ],
)
def test_windows(name, size, expected):
    truth = torch.full((1, 1, *size), 2.0)
    assert block(protocols.compare(truth, truth, PROTOCOLS[name]).valid) == expected


def test_a_truth_smaller_than_the_window_is_an_error():
    truth = torch.full((1, 1, 300, 1242), 2.0)
    with pytest.raises(DataError, match=r"352x1216 pixels and this truth has 300x1242.*kitti-garg"):
        protocols.compare(truth, truth, PROTOCOLS["kitti-garg-kb"])


def test_truth_is_resized_to_240x320_without_averaging():
    truth = torch.arange(480 * 640).view(1, 1, 480, 640) % 7 + 1.0
    compared = protocols.compare(torch.full_like(truth, 20.0), truth, PROTOCOLS["nyu-s2d"])
    assert compared.truth.shape == (1, 1, 240, 320) and set(compared.truth.unique().tolist()) <= set(range(1, 8))
    assert (compared.prediction == 20).all()  # not clamped


def test_alignment_takes_a_constant_for_the_mean_and_leaves_a_frame_without_truth():
    truth = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 0.0]).view(2, 1, 1, 3)
    flat = torch.full_like(truth, 4.0)
    assert (
        protocols.compare(flat, truth, PROTOCOLS["affine-depth"]).prediction.flatten().tolist() == [3.0] * 3 + [4.0] * 3
    )
    compared = protocols.compare(flat, truth, PROTOCOLS["affine-disparity"]).prediction
    assert compared[0].flatten().tolist() == pytest.approx([1.8] * 3) and (compared[1] == 4).all()
    assert (
        protocols.compare(flat, truth, PROTOCOLS["median-scaled"]).prediction.flatten().tolist()
        == [2.0] * 3 + [4.0] * 3
    )


@pytest.mark.parametrize("name", ["median-scaled", "median-scaled-kitti", "affine-depth", "affine-disparity"])
@pytest.mark.parametrize("metres", [0.0, -3.0, 1e-40])
def test_a_dead_prediction_is_scored_and_badly(name, metres):
    truth = torch.linspace(1, 9, 40 * 60).view(1, 1, 40, 60)
    dead = torch.full_like(truth, metres)
    dead[..., 30:] *= 2 if metres < 1e-30 else 1
    compared = protocols.compare(dead, truth, PROTOCOLS[name])
    sums = metrics.image_sums(compared.prediction, compared.truth, valid=compared.valid)
    assert torch.isfinite(compared.prediction).all() and sums[0, 0, 0] > 0
    scores = metrics.scores(sums)
    assert all(np.isfinite(list(scores.values()))) and scores["abs_rel"] > 0.2 and scores["delta1"] < 0.6


def test_a_dead_frame_does_not_raise_the_mean_of_the_others():
    truth = torch.linspace(1, 9, 400).view(1, 1, 20, 20).repeat(2, 1, 1, 1)
    prediction = truth.clone()
    prediction[1] = 0
    compared = protocols.compare(prediction, truth, PROTOCOLS["median-scaled"])
    scores = metrics.scores(metrics.image_sums(compared.prediction, compared.truth, valid=compared.valid))
    assert scores["abs_rel"] == pytest.approx(0.5, abs=1e-3) and scores["delta1"] == 0.5


@pytest.mark.parametrize(
    ("name", "like"),
    [
        *(("affine-depth-nyu", "nyu-bts"), ("affine-disparity-nyu", "nyu-bts")),
        *((f"{name}-kitti", "kitti-garg") for name in ("affine-depth", "affine-disparity", "median-scaled")),
    ],
)
def test_an_aligned_protocol_of_a_data_set_scores_the_pixels_of_its_plain_one(name, like):
    truth = torch.rand((1, 1, 375, 1242), generator=torch.Generator().manual_seed(0)) * 100
    first, second = (protocols.compare(truth, truth, PROTOCOLS[each]).valid for each in (name, like))
    assert torch.equal(first, second) and 0 < first.sum() < first.numel()


def test_a_disparity_that_would_be_negative_is_the_farthest_depth():
    truth, prediction = torch.tensor([1.0, 9.0, 9.0, 9.0]), torch.tensor([1.0, 2.0, 2.0, 1e3])
    compared = protocols.compare(prediction.view(1, 1, 1, 4), truth.view(1, 1, 1, 4), PROTOCOLS["affine-disparity"])
    assert compared.prediction[0, 0, 0, 3] == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_prediction_is_resized_bilinearly_with_pixel_centres_at_half_integers(dtype):
    prediction = torch.tensor([[[[1.0, 2.0]]]], dtype=dtype)
    depth, _ = protocols.apply(prediction, torch.full((1, 1, 1, 4), 2.0), PLAIN)
    assert depth.dtype == torch.float32 and depth.flatten().tolist() == [1.0, 1.25, 1.75, 2.0]


def test_infinity_does_not_spread_when_resized():
    prediction = torch.tensor([[[[2.0, torch.inf]]]])
    depth, _ = protocols.apply(prediction, torch.full((1, 1, 1, 4), 2.0), PLAIN)
    assert depth.flatten().tolist() == [2.0, 4.0, 8.0, 10.0]


def test_unknown_protocol_names_the_key_and_the_nearest():
    with pytest.raises(UsageError, match=r"demo: eval\.protocol: no protocol 'nyu-bst' \(did you mean 'nyu-bts'\?\)"):
        protocols.check("nyu-bst", where="demo")
    protocols.check("nyu-bts", where="demo")


def test_checking_a_name_does_not_wait_for_torch():
    code = (
        "import sys, depthray.evaluation.protocols as p; p.check('plain', where=''); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
