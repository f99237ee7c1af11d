"""The scores that single protocols have of their own, against the seed systems' formulas in float64 NumPy."""

import numpy as np
import pytest
import torch
from scoring import Rooms

from depthray.config.sections import Data
from depthray.data.loader import eval_batches
from depthray.errors import UsageError
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.mask_metrics import MASK_METRICS
from depthray.evaluation.metrics import METRICS
from depthray.evaluation.protocols import PROTOCOLS
from depthray.evaluation.ssim import ssim

EXACT = {"rel": 1e-6, "abs": 0}


class Figures(Rooms):
    """Rooms with a foreground, all of one size and measured."""

    keys = frozenset({"image", "depth", "mask"})

    def __init__(self):
        super().__init__(16)

    def read(self, index):
        sample = super().read(4 * (index + 1))  # frames of 24x32 with a truth
        mask = np.zeros((24, 32), np.uint8)
        mask[4:18, 6:20] = 1
        frame = self.frames[index]
        names = {"id": frame.id, "scene": frame.scene, "source": frame.source}
        return {**sample, "mask": mask, **names}


class Answer(torch.nn.Module):
    """Predicts given maps, whatever it sees."""

    inputs, stride = ("image",), 1

    def __init__(self, **maps):
        super().__init__()
        self.maps = maps

    def forward(self, batch):
        return {
            key: torch.from_numpy(value)[batch["image"].shape[0] * [0]][:, None] for key, value in self.maps.items()
        }


def scored(name, count=3, **maps):
    batches = eval_batches(Figures(), range(count), Data(size=(24, 32)), batch_size=2)
    return evaluate(Answer(**maps), batches, protocol=PROTOCOLS[name], device=torch.device("cpu"))


def truths(count=3):
    return [Figures().read(index)["depth"].astype(np.float64) for index in range(count)]


def maps():
    rng = np.random.default_rng(3)
    return {
        "depth": rng.uniform(1, 9, (1, 24, 32)).astype(np.float32),
        "mask": rng.normal(0, 2, (1, 24, 32)).astype("f4"),
    }


def test_legacy_001_counts_every_pixel_at_320x320():
    depth = np.full((1, 24, 32), 4.0, np.float32)
    rows, columns = np.arange(320) * 24 // 320, np.arange(320) * 32 // 320
    expected = [np.mean(np.abs(truth[np.ix_(rows, columns)].clip(max=10) - 4)) for truth in truths()]
    found = scored("legacy-001", depth=depth)
    assert found.names == ("mae",) and found.scores()["mae"] == pytest.approx(np.mean(expected), **EXACT)
    assert found.scores()["mae"] > 1.05 * scored("plain", depth=depth).scores()["mae"]  # holes count as 0 m


def test_legacy_003_is_relative_to_the_largest_depth():
    found = scored("legacy-003", depth=maps()["depth"])
    assert found.names == ("ssim", "mse")
    doubled = scored("legacy-003", depth=2 * maps()["depth"])
    assert doubled.scores() == pytest.approx(found.scores(), rel=1e-5)  # scale is not seen

    def small(depth):
        resized = torch.nn.functional.interpolate(torch.from_numpy(depth)[None], size=(56, 56), mode="bilinear")
        return resized / float(depth.max())

    p = small(maps()["depth"].astype(np.float64))
    pairs = [(p, small(truth[None])) for truth in truths()]
    assert found.scores()["mse"] == pytest.approx(np.mean([float((p - d).square().mean()) for p, d in pairs]), rel=1e-5)
    expected = np.mean([float(ssim(p, d, data_range=1.0)) for p, d in pairs])
    assert found.scores()["ssim"] == pytest.approx(expected, rel=1e-4)


def test_legacy_003_of_the_truth_is_perfect():
    found = scored("legacy-003", count=1, depth=truths()[0][None].astype(np.float32)).scores()
    assert found["ssim"] == pytest.approx(1, abs=1e-6) and found["mse"] < 1e-12


def seed_004_iou(p, y):
    overlap = np.sum(p * y)
    return (overlap + 1e-6) / (np.sum(p + y) - overlap + 1e-6)


def test_legacy_004_mixes_mask_and_depth():
    p = maps()
    mask = Figures().read(0)["mask"].astype(np.float64)
    of_mask = seed_004_iou(1 / (1 + np.exp(-p["mask"][0].astype(np.float64))), mask)
    of_depth = np.mean([seed_004_iou(p["depth"][0] / 10, truth / 10) for truth in truths()])
    found = scored("legacy-004", **p)
    expected = {"soft_iou": (of_mask + of_depth) / 2, "soft_iou_mask": of_mask, "soft_iou_depth": of_depth}
    assert found.scores() == pytest.approx(expected, **EXACT)


def test_a_perfect_depth_has_a_low_soft_iou():
    """Why the mixed figure means little: of depth alone a perfect prediction is far from 1."""
    perfect = truths()[0][None].astype(np.float32)
    assert scored("legacy-004", count=1, depth=perfect, mask=maps()["mask"]).scores()["soft_iou_depth"] < 0.6


def test_legacy_004_without_a_mask_is_an_error():
    with pytest.raises(UsageError, match="protocol legacy-004 scores depth and mask, and the network predicts no mask"):
        scored("legacy-004", depth=maps()["depth"])


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "kitti-garg-kb"])
@pytest.mark.parametrize("targets", [("depth",), ("mask",), ("depth", "mask")])
def test_a_protocol_states_the_names_it_scores(name, targets):
    stated = PROTOCOLS[name].scores(targets)
    if set(PROTOCOLS[name].needs) <= set(targets) or PROTOCOLS[name].usual:
        assert scored(name, count=1, **{key: maps()[key] for key in targets}).names == stated != ()
    else:
        assert stated == ()


def test_ssim_is_scored_where_a_protocol_asks_for_it():
    p = maps()
    assert scored("plain", **p).names == (*METRICS, *MASK_METRICS)
    found = scored("plain-ssim", **p)
    assert found.names == (*METRICS, "ssim", *MASK_METRICS)
    prediction, truth = torch.from_numpy(p["depth"][:, None]).double(), torch.from_numpy(truths()[0])[None, None]
    assert found.rows[0].score("ssim") == pytest.approx(
        float(ssim(prediction[..., 4:, :], truth[..., 4:, :], data_range=10.0)), rel=1e-6
    )  # the first four rows are not measured
