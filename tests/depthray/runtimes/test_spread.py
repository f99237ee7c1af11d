"""Confidence from the spread of predictions: of the mirrored image and of several networks, and its factor."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint, write_unsure
from torch import nn

import depthray
from depthray import models
from depthray.__main__ import main
from depthray.checkpoints import load, manifest, save, select
from depthray.errors import UsageError
from depthray.runtimes.spread import LEAST, SpreadNetwork


class Given(nn.Module):
    """A network that says the same of each image, or of each column the same, and its red as depth."""

    inputs, stride = ("image",), 4

    def __init__(self, depth: float = 0.0, *, ramp: bool = False, **others: float) -> None:
        super().__init__()
        self.depth, self.ramp, self.others = depth, ramp, others

    def forward(self, batch: Any) -> Any:
        image = batch["image"][:, :1]
        assert image.shape[-1] % self.stride == 0  # as `models.run` pads
        depth = image + self.depth
        if self.ramp:
            depth = depth + torch.arange(image.shape[-1])
        return {"depth": depth, **{key: torch.full_like(depth, value) for key, value in self.others.items()}}


def batch(height: int = 20, width: int = 30) -> Any:
    return {"image": torch.zeros(2, 3, height, width)}


def spread(*networks: nn.Module, flip: bool = False, factor: float = 1.0, size: tuple[int, int] = (20, 30)) -> Any:
    return models.run(SpreadNetwork(networks, flip=flip, factor=factor), batch(*size))


def test_several_networks_are_their_mean_of_ln_depth_and_its_deviation() -> None:
    found = spread(Given(2.0), Given(2.0 * math.e), Given(2.0 * math.e**2), factor=3.0)
    torch.testing.assert_close(found["depth"], torch.full((2, 1, 20, 30), 2.0 * math.e))
    torch.testing.assert_close(found["log_sigma"].exp(), torch.full((2, 1, 20, 30), 3.0))  # of 0, 1, 2 it is 1


def test_deviations_of_their_own_are_added_and_masks_averaged() -> None:
    logs = {"log_sigma": math.log(0.3)}
    found = spread(Given(1.0, **logs, valid=4.0), Given(math.e, **logs, valid=-2.0))
    torch.testing.assert_close(
        found["log_sigma"].exp().mean().item(), math.hypot(0.3, math.sqrt(0.5)), rtol=1e-3, atol=0
    )
    assert (found["valid"] == 1.0).all()
    alone = spread(Given(1.0, **logs), Given(math.e))  # which only one of them has
    torch.testing.assert_close(alone["log_sigma"].exp().mean().item(), math.sqrt(0.5), rtol=1e-3, atol=0)


def test_a_mirrored_image_differs_where_a_network_knows_left_from_right() -> None:
    same = spread(Given(1.0), flip=True)
    torch.testing.assert_close(same["log_sigma"].exp(), torch.full((2, 1, 20, 30), LEAST))
    found = spread(Given(1.0, ramp=True), flip=True, size=(8, 32))
    columns = torch.arange(32.0) + 1
    expected = (columns.log() - columns.flip(0).log()).abs() / math.sqrt(2)
    torch.testing.assert_close(found["log_sigma"].exp()[0, 0, 3], (expected**2 + LEAST**2).sqrt())
    torch.testing.assert_close(found["depth"][0, 0, 3], (columns * columns.flip(0)).sqrt())


def test_its_squares_are_averaged_over_a_neighbourhood() -> None:
    found = spread(Given(1.0, ramp=True), flip=True, size=(96, 96))["log_sigma"].exp()[0, 0, 40]
    middle, edge = found[48], found[2]
    assert 0.005 < middle < 0.1 < edge  # in the middle both agree, and what is around it counts


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks of one recipe with other weights."""
    folder = tmp_path_factory.mktemp("runs")
    first = write_checkpoint(folder / "a", "data.size=32,64", "data.frames=16", "data.val_fraction=0.5")
    loaded, generator = load.load(first, state=True), torch.Generator().manual_seed(1)
    for name, value in loaded.weights.items():
        if name.endswith("weight") and value.ndim == 4:
            loaded.weights[name] = value + 0.05 * torch.randn(value.shape, generator=generator)
    return [first, save.write(folder / "b" / "checkpoints", loaded)]


RGB = np.random.default_rng(0).integers(0, 255, (32, 64, 3)).astype(np.uint8)


def test_python_and_the_command_line_predict_it(
    seeds: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = [depthray.load(each).predict(RGB) for each in seeds]
    assert plain[0].sigma is None
    both = depthray.load(seeds[0], ensemble=[seeds[1]]).predict(RGB)
    np.testing.assert_allclose(both, np.sqrt(np.multiply(*plain)), rtol=1e-4)
    assert both.sigma is not None and both.confidence is not None and "fit a factor" in caplog.text
    off = np.abs(np.log(plain[0] / plain[1])) / math.sqrt(2)
    np.testing.assert_allclose((both.sigma / both.metres).mean(), off.mean(), rtol=0.2)
    flipped = depthray.load(seeds[0], confidence="flip")
    assert flipped.has_confidence and flipped.predict(RGB).sigma is not None
    import cv2

    cv2.imwrite(str(tmp_path / "x.png"), RGB)
    words = [str(seeds[0]), str(tmp_path / "x.png"), "--format", "npz", "--out", str(tmp_path / "out")]
    for flags in (["--confidence", "flip"], ["--ensemble", str(seeds[1])]):
        assert main(["predict", *words, *flags]) == 0
        with np.load(tmp_path / "out" / "x.depth.npz") as planes:
            assert {*planes.files} == {"depth", "sigma", "confidence"}


def test_an_evaluation_scores_it(seeds: list[Path], tmp_path: Path) -> None:
    assert main(["evaluate", str(seeds[0]), "--ensemble", str(seeds[1]), "--out", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["confidence"]["distribution"] == "laplace" and summary["spread_of"].startswith("ensemble with ")
    alone = depthray.evaluate(seeds[0], ensemble=[seeds[1]])
    assert alone.scores["abs_rel"] == pytest.approx(summary["overall"]["abs_rel"]["mean"])


def test_a_factor_is_fitted_to_it_and_to_nothing_else(
    seeds: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "flip"
    assert main(["calibrate", str(seeds[0]), "--confidence", "--flip", "--split", "all", "--out", str(out)]) == 0
    path = select.resolve(out)
    fitted = manifest.verify(path).temperature
    assert fitted is not None and fitted.of == "flip" and fitted.factor > 1
    assert json.loads((path / manifest.NAME).read_text())["format"] == manifest.FORMAT_WITH_SPREAD
    before, after = (depthray.load(each, confidence="flip").predict(RGB) for each in (seeds[0], path))
    assert before.sigma is not None
    np.testing.assert_allclose(after.sigma, fitted.factor * before.sigma, rtol=1e-4)
    assert depthray.load(path).predict(RGB).sigma is None  # it costs twice the time, and is asked for
    caplog.clear()
    depthray.load(path, confidence="flip")
    assert not caplog.text
    depthray.load(path, ensemble=[seeds[1]])
    assert "fit a factor" in caplog.text  # of another spread


def test_networks_of_an_ensemble_see_the_same(seeds: list[Path], tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "a", "data.size=64,64")
    with pytest.raises(UsageError, match=r"its data\.size is 64,64, that of the first network 32,64"):
        depthray.load(seeds[0], ensemble=[other])
    with pytest.raises(UsageError, match="confidence flop: give flip"):
        depthray.load(seeds[0], confidence="flop")
    relative = write_checkpoint(
        tmp_path / "b", "loss.silog=0", "loss.gradient=0", "loss.l1=0", "loss.ssi=1", "eval.protocol=affine-disparity"
    )
    with pytest.raises(UsageError, match="the spread is that of metres"):
        depthray.load(relative, confidence="flip")


def test_a_network_with_its_own_keeps_its_distribution(tmp_path: Path) -> None:
    own = depthray.load(write_unsure(tmp_path, family="gaussian"), confidence="flip")
    assert own.uncertainty == "gaussian" and own.predict(RGB).sigma is not None


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["calibrate", "{run}", "--flip"], 2, "give --confidence too"),
        (["calibrate", "{run}", "--confidence"], 2, "or give --flip or --ensemble"),
        (
            ["predict", "--url", "http://x", "x.png", "--ensemble", "{run}"],
            2,
            "--ensemble cannot be combined with --url",
        ),
        (["evaluate", "{run}", "--ensemble", "/nowhere"], 3, "/nowhere"),
        (["evaluate", "{run}", "--confidence", "flop"], 2, "flop"),
    ],
)
def test_mistakes_are_one_line(
    seeds: list[Path], words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(run=seeds[0]) for word in words]) == code
    assert message in capsys.readouterr().err
