"""Several forward passes for one prediction: what their mean is, at which sizes, and what they cannot do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from torch import Tensor, nn

import depthray
from depthray.__main__ import main
from depthray.batch import Batch, Prediction
from depthray.errors import UsageError
from depthray.predict import load
from depthray.runtimes import passes
from depthray.runtimes.passes import Passes
from depthray.training import preflight


class Scene(nn.Module):
    """Metres that are a function of the picture, as told: of its columns, size or pixels."""

    inputs = ("image",)
    stride = 8

    def __init__(self, depth: Any) -> None:
        super().__init__()
        self.depth = depth
        self.sizes: list[tuple[int, int]] = []

    def forward(self, batch: Batch) -> Prediction:
        image = batch["image"]
        self.sizes.append((image.shape[-2], image.shape[-1]))
        depth: Tensor = self.depth(image)
        return {"depth": depth, "mask": depth - 2.0}


def columns(image: Tensor) -> Tensor:
    """1 to 2 from left to right, whatever is in the picture."""
    ramp = torch.linspace(1, 2, image.shape[-1])
    return ramp.expand(image.shape[0], 1, *image.shape[-2:]).clone()


def picture(height: int = 32, width: int = 48) -> Any:
    rows = torch.linspace(0.1, 0.9, height)[:, None].expand(height, width)
    return {"image": torch.stack([rows] * 3)[None] * torch.linspace(0.5, 1, width), "depth": torch.ones(1, 1, 9, 9)}


def test_one_pass_is_the_network_itself() -> None:
    network = Scene(columns)
    found = passes.run(network, picture())
    assert torch.equal(found["depth"], columns(picture()["image"])) and network.sizes == [(32, 48)]
    assert Passes().is_one and str(Passes()) == "one"


def test_the_mirrored_picture_is_mirrored_back() -> None:
    found = passes.run(Scene(columns), picture(), Passes(flip=True))
    # A ramp that does not look at the picture and its mirror image are flat together.
    assert torch.allclose(found["depth"], torch.full((1, 1, 32, 48), 1.5), atol=1e-6)
    assert torch.allclose(found["mask"], torch.full((1, 1, 32, 48), -0.5), atol=1e-6)
    looks = Scene(lambda image: 1 + image[:, :1])
    expected = passes.run(looks, picture())["depth"]
    assert torch.allclose(passes.run(looks, picture(), Passes(flip=True))["depth"], expected, atol=1e-6)


def test_other_sizes_change_the_shape_and_not_the_metres() -> None:
    def by_size(image: Tensor) -> Tensor:  # half of the size looks twice as far away
        return (1 + image[:, :1]) * 32 / image.shape[-2]

    network = Scene(by_size)
    found = passes.run(network, picture(), Passes(flip=True, scales=(0.5, 2.0)))
    assert network.sizes == [(32, 48), (32, 48), (16, 24), (16, 24), (64, 96), (64, 96)]
    assert found["depth"].shape == (1, 1, 32, 48)
    plain = passes.run(Scene(by_size), picture())["depth"]
    assert torch.allclose(found["depth"], plain, rtol=0.02)


@pytest.mark.parametrize("tiles", [2, 3])
def test_tiles_give_detail_and_keep_the_metres_of_the_whole(tiles: int) -> None:
    def of_pixels(image: Tensor) -> Tensor:  # a crop looks nearer: each has a scale of its own
        return (1 + image[:, :1]) * (1 + image.mean(dim=(1, 2, 3), keepdim=True))

    batch = picture(32 * tiles, 48 * tiles)
    stripes = 0.05 * (torch.arange(48 * tiles) % 2)  # which are gone at the network's size
    batch["image"] = batch["image"] + stripes
    network = Scene(of_pixels)
    found = passes.run(network, batch, Passes(tiles=tiles))["depth"]
    assert found.shape == (1, 1, 32 * tiles, 48 * tiles) and torch.isfinite(found).all()
    assert network.sizes == [(32, 48)] * (1 + (2 * tiles - 1) ** 2)
    whole = of_pixels(batch["image"])
    coarse = nn.functional.interpolate(
        of_pixels(nn.functional.interpolate(batch["image"], (32, 48), mode="bilinear", antialias=True)),
        whole.shape[-2:],
        mode="bilinear",
    )
    assert float(((found - whole) / whole).abs().mean()) < 0.4 * float(((coarse - whole) / whole).abs().mean())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval.tiles=9"], "eval.tiles=9: give 1 to 8"),
        (["eval.scales=[0.1]"], "eval.scales=0.1: give multiples of the network's size, 0.25 to 4"),
        (["eval.tiles=2", "data.inputs=[image,sparse]"], "eval.tiles: this network reads sparse"),
        (["eval.scales=[0.5]", "data.fit=native", "data.inputs=[image,semantics]"], "eval.scales: this network reads"),
        (["eval.tiles=2", "data.fit=native"], "eval.tiles: this network sees pictures at their own size"),
        (["eval.scales=[2]", "loss={ssi: 1}", "eval.protocol=affine-disparity"], "is not in metres"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        preflight.load("demo", words)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run"), "data.size=32,64", "data.frames=8", "data.val_fraction=0.5")


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_large_photographs_alone_are_tiled(checkpoint: Path) -> None:
    plain, tiled = load(checkpoint, device="cpu"), load(checkpoint, device="cpu", tiles=2)
    small, large = photograph(40, 80), photograph(64, 128)
    assert np.array_equal(tiled.predict(small), plain.predict(small))
    first, second, third = tiled.predict([small, large, large])
    assert np.array_equal(first, plain.predict(small)) and second.shape == (64, 128)
    assert not np.allclose(second, plain.predict(large), rtol=1e-3)
    assert np.allclose(second, third) and np.allclose(second, tiled.predict(large), rtol=1e-4)


def test_the_command_predicts_with_passes_and_refuses_them_for_servers(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    photo, out = tmp_path / "photo.png", tmp_path / "out"
    Image.fromarray(photograph(64, 128)).save(photo)
    words = [str(photo), "--format", "npy", "--out", str(out)]
    assert main(["predict", str(checkpoint), *words, "--flip", "--scales", "0.5,1.5", "--tiles", "2"]) == 0
    expected = load(checkpoint, device="cpu", flip=True, scales=(0.5, 1.5), tiles=2).predict(photograph(64, 128))
    assert np.allclose(np.load(out / "photo.depth.npy"), expected, rtol=1e-5)
    capsys.readouterr()
    for flags, message in (
        (["--scales", "half"], "--scales=half: give numbers"),
        (["--tiles", "0"], "--tiles 0: give a number above 0"),
        (["--tiles", "2", "--url", "http://localhost:1"], "--tiles cannot be combined with --url"),
    ):
        given = [] if "--url" in flags else [str(checkpoint)]
        assert main(["predict", *given, *words, *flags]) == 2
        assert message in capsys.readouterr().err


def test_an_evaluation_says_by_which_passes(checkpoint: Path) -> None:
    plain = depthray.evaluate(checkpoint)
    for word in ("eval.flip=true", "eval.scales=[0.5]", "eval.tiles=2"):
        report = depthray.evaluate(checkpoint, word)
        assert report.evaluation.about["passes"] == str(Passes.of(preflight.load("demo", [word]).eval))
        assert report.scores["abs_rel"] != plain.scores["abs_rel"]
        assert report.scores["abs_rel"] == pytest.approx(plain.scores["abs_rel"], rel=0.2)
    assert "passes" not in plain.evaluation.about
