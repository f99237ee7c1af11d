"""The protocols against figures worked out by hand."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from depthray import metrics, protocols
from depthray.errors import UsageError
from depthray.protocols import NYU_BTS, PLAIN, PROTOCOLS


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
    found = golden_scores("nyu-bts")
    assert found["mae"] == pytest.approx((0.2 * (count - 4) + odd) / count, rel=1e-6)
    assert found["abs_rel"] == pytest.approx((0.1 * (count - 4) + odd / 4) / count, rel=1e-6)
    assert found["delta1"] == pytest.approx((count - 4) / count, rel=1e-12)


def test_golden_plain():
    count, odd, outside = 480 * 640 - 4, 2 * (4 - 0.001) + 2 * 6, 45 * 640
    found = golden_scores("plain")
    assert found["mae"] == pytest.approx((0.2 * (count - 4 - outside) + 7 * outside + odd) / count, rel=1e-6)
    assert found["delta1"] == pytest.approx((count - 4 - outside) / count, rel=1e-12)
    rmse = np.sqrt((0.04 * (count - 4 - outside) + 49 * outside + 2 * 3.999**2 + 2 * 36) / count)
    assert found["rmse"] == pytest.approx(rmse, rel=1e-6)


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
    truth = torch.full((1, 1, 480, 640), 2.0)
    around = torch.tensor([0, 1e-3, 10.0, torch.inf, torch.nan, -1.0, 1.1e-3, 9.999])
    truth[0, 0, 240, 300:308] = around
    valid = protocols.apply(truth, truth, protocol)[1]
    assert valid[0, 0, 240, 300:308].tolist() == [False] * 6 + [True] * 2


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
    code = "import sys, depthray.protocols as p; p.check('plain', where=''); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
