"""Confidence from a checkpoint to files: what sigma and confidence are, and which points they keep."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint, write_unsure
from PIL import Image

from depthray import load
from depthray.__main__ import main
from depthray.errors import UsageError
from depthray.models.layers import confidence as formulas


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_unsure(tmp_path_factory.mktemp("run"))


@pytest.fixture
def image(tmp_path):
    y, x = np.mgrid[:48, :64]
    path = tmp_path / "room.png"
    Image.fromarray(np.stack([x * 3, y * 4, 255 - x - y], -1).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("family", ["laplace", "gaussian"])
@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5])
def test_confidence_and_intervals_are_those_of_the_distribution(family, sigma):
    draws = np.random.default_rng(0)
    scale = sigma / math.sqrt(2)
    logs = draws.laplace(0, scale, 400_000) if family == "laplace" else draws.normal(0, sigma, 400_000)
    assert logs.std() == pytest.approx(sigma, rel=0.01)
    given = formulas.confidence(torch.tensor([math.log(sigma)]), family).item()
    assert given == pytest.approx((np.exp(np.abs(logs)) < 1.1).mean(), abs=0.003)
    for share in (0.05, 0.68, 0.95):
        z = formulas.interval(share, family)
        assert (np.abs(logs) < z * sigma).mean() == pytest.approx(share, abs=0.003)
        torch.testing.assert_close(formulas.probability(torch.tensor(z), family), torch.tensor(share))


def test_a_network_gives_metres_with_their_deviation_and_confidence(trained):
    rgb = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    depth = load(trained).predict(rgb)  # of the network's own size, so that nothing is resized
    assert depth.sigma.shape == depth.confidence.shape == depth.shape == (64, 96)
    assert load(trained).predict(rgb[:40, :60]).sigma.shape == (40, 60)
    sigma = torch.tensor(depth.sigma / depth.metres)
    np.testing.assert_allclose(depth.confidence, formulas.confidence(sigma.log(), "laplace"), rtol=1e-4)
    least = float(np.median(depth.confidence)) + 1e-6
    assert len(depth.points()) > 0 and len(depth.points(min_confidence=least)) == (depth.confidence >= least).sum()


def test_a_network_without_has_none_and_says_so(tmp_path, image, capsys):
    plain = write_checkpoint(tmp_path)
    predictor = load(plain)
    depth = predictor.predict(np.full((40, 60, 3), 90, np.uint8))
    assert depth.sigma is None and depth.confidence is None and set(predictor.maps(image)) == {"depth"}
    with pytest.raises(UsageError, match="this depth has no confidence"):
        depth.points(min_confidence=0.5)
    assert main(["predict", str(plain), str(image), "--format", "ply", "--min-confidence", "0.5"]) == 2
    assert "--min-confidence: this network predicts no confidence" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-0.1", "1.5"])
def test_a_confidence_is_from_0_to_1(trained, image, value, capsys):
    assert main(["predict", str(trained), str(image), f"--min-confidence={value}"]) == 2
    assert "give a number from 0 to 1" in capsys.readouterr().err


def test_files_have_a_second_plane_and_points_are_left_out(trained, image, tmp_path, capsys):
    out, all_points = tmp_path / "out", 48 * 64
    predicted = load(trained).maps(image)
    least = float(np.quantile(predicted["confidence"], 0.5)) + 1e-6
    flags = ["--format", "png,npz,ply,glb", "--min-confidence", f"{least:.9f}", "--out", str(out)]
    assert main(["predict", str(trained), str(image), *flags]) == 0
    with np.load(out / "room.depth.npz") as planes:
        assert {*planes.files} == {"depth", "sigma", "confidence"}
        assert all(np.array_equal(planes[name], predicted[name]) for name in planes.files)
    grey = cv2.imread(str(out / "room.confidence.png"), cv2.IMREAD_UNCHANGED)
    assert grey.dtype == np.uint8 and np.abs(grey / 255 - predicted["confidence"]).max() <= 0.5 / 255 + 1e-6
    header = (out / "room.ply").read_bytes().split(b"end_header")[0].decode()
    count = int(header.split("element vertex ")[1].split()[0])
    assert count == (predicted["confidence"] >= np.float32(f"{least:.9f}")).sum() and 0 < count < all_points
    glb = (out / "room.glb").read_bytes()
    length = int.from_bytes(glb[12:16], "little")
    tree, body = json.loads(glb[20 : 20 + length]), glb[28 + length :]
    colours = np.frombuffer(body, np.uint8, 4 * count, 12 * count).reshape(count, 4)
    kept = predicted["confidence"][predicted["confidence"] >= np.float32(f"{least:.9f}")]
    assert np.abs(colours[:, 3] / 255 - kept).max() < 0.003 and tree["materials"] == [{"alphaMode": "BLEND"}]
    assert "confidence 0." in capsys.readouterr().out
    assert main(["predict", str(trained), str(out), "--out", str(out / "again")]) != 0  # outputs are no inputs
