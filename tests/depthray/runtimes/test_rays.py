"""Networks that see the camera of each image (model.rays): through passes, exports and training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from export_cases import write_traced

import depthray
from depthray import models, predict
from depthray.__main__ import main
from depthray.batch import Batch, Prediction
from depthray.checkpoints import load as checkpoints
from depthray.checkpoints import save
from depthray.config.sections import Model
from depthray.errors import UsageError
from depthray.exporting import gate
from depthray.exporting.graph import build_graph, difference, trace
from depthray.exporting.write import ExportRequest, export
from depthray.models.layers.inputs import ray_channels
from depthray.runtimes import passes
from depthray.runtimes.open import backend
from depthray.runtimes.passes import Passes
from depthray.training import preflight

RAYS = ("data.canonical_focal=60", "model.rays=true")
PHOTO = np.random.default_rng(1).integers(0, 255, (128, 192, 3)).astype(np.uint8)
CAMERA = (160.0, 150.0, 80.0, 60.0)
MATRIX = torch.tensor([[[160.0, 0, 80], [0, 150, 60], [0, 0, 1]]])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose first convolution reads the rays as much as the image."""
    path = write_checkpoint(tmp_path_factory.mktemp("rays"), *RAYS)
    contents = checkpoints.load(path, state=True)
    first = next(key for key, value in contents.weights.items() if value.ndim == 4 and value.shape[1] == 6)
    weights = {**contents.weights, first: contents.weights[first].clone()}
    weights[first][:, 3:] = 0.2 * torch.randn(weights[first][:, 3:].shape, generator=torch.Generator().manual_seed(0))
    return save.write(path.parents[1] / "rays", replace(contents, weights=weights))


class Rays(torch.nn.Module):
    """Predicts 10 m more than X / Z of each pixel's ray."""

    inputs, stride = ("image", "intrinsics"), 32

    def forward(self, batch: Batch) -> Prediction:
        height, width = batch["image"].shape[-2:]
        return {"depth": 10 + ray_channels(batch["intrinsics"], (height, width))[:, :1]}


def test_rays_are_those_of_the_camera() -> None:
    channels = ray_channels(MATRIX, (4, 5))
    assert channels.shape == (1, 3, 4, 5)
    assert channels[0, 0, 1, 3].item() == pytest.approx((3 - 80) / 160)
    assert channels[0, 1, 1, 3].item() == pytest.approx((1 - 60) / 150)
    torch.testing.assert_close(channels[0, 2], torch.full((4, 5), 2 * np.log(np.sqrt(160 * 150) / 200)).float())


@pytest.mark.parametrize("size", [(64, 96), (50, 70)], ids=str)  # the second is padded to the stride
def test_every_pass_has_the_camera_of_its_picture(size: tuple[int, int]) -> None:
    """A mirrored, resized or cut picture has the rays of the pixels that it shows."""
    batch: Any = {"image": torch.rand(1, 3, *size), "intrinsics": MATRIX}
    expected = 10 + ray_channels(MATRIX, size)[:, :1]
    torch.testing.assert_close(models.run(Rays(), batch)["depth"], expected)
    mirrored: Any = passes.flipped(Rays(), batch)
    torch.testing.assert_close(models.run(Rays(), mirrored)["depth"].flip(-1), 20 - expected)
    for each in (Passes(scales=(0.5,)), Passes(tiles=2)):
        found = passes.run(Rays(), batch, each)["depth"]
        torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)


def test_the_camera_changes_more_than_the_scale(checkpoint: Path) -> None:
    network = depthray.load(checkpoint)
    assert network.model.network.inputs == ("image", "intrinsics")
    long, short = (
        np.asarray(network.predict(PHOTO, camera=(focal, focal, 95.5, 63.5))) / focal for focal in (160.0, 80.0)
    )
    assert np.abs(long / short - 1).max() > 1e-3  # without rays only the factor f / F would differ
    with pytest.raises(UsageError, match="needs the camera of the image"):
        network.predict(PHOTO)
    for passes_of in ({"tiles": 2}, {"scales": (0.5,), "flip": True}):
        other = predict.load(checkpoint, **passes_of).predict(PHOTO, camera=CAMERA)
        assert float(np.median(other / network.predict(PHOTO, camera=CAMERA))) == pytest.approx(1, abs=0.2)


def test_an_export_takes_the_camera(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SCALES", (1.0,)), ("BATCHES", (2,))):  # other tests compare at several
        monkeypatch.setattr(gate, name, value)
    export(checkpoint, ExportRequest("onnx", tmp_path / "export", calibration=4, gate=4, largest_side=256))
    ours, theirs = (depthray.load(each).predict(PHOTO, camera=CAMERA) for each in (checkpoint, tmp_path / "export"))
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
    text = (tmp_path / "export" / "README.md").read_text()
    assert "(B, 3, 3)" in text and "fx, fy, cx, cy = ..." in text
    assert np.abs(_run_code_of(text, tmp_path, monkeypatch) / ours - 1).max() < 2e-2  # it rounds to millimetres


def test_openvino_does_too(checkpoint: Path, tmp_path: Path) -> None:
    network: Any = depthray.load(checkpoint).model
    graph = build_graph(network.network, ("depth",))
    traced = trace(graph, size=(64, 96), largest_side=256)
    run = backend("openvino").load(write_traced(traced, "openvino", tmp_path), threads=1, device=torch.device("cpu"))
    for shape in ((1, 64, 96), (3, 96, 128)):
        example = graph.example(*shape)
        assert difference(run(example), graph(*example)) < 1e-4


def _run_code_of(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The depth in metres that the lines of a README make of the photograph."""
    import cv2

    monkeypatch.chdir(folder / "export")
    cv2.imwrite("photo.jpg", PHOTO[..., ::-1])
    monkeypatch.setattr(cv2, "imread", lambda _: PHOTO[..., ::-1])  # without what JPEG changes
    code = text.split("```python\n")[1].split("```")[0].replace(" = ...", f" = {CAMERA}")
    exec(code, {})  # noqa: S102
    monkeypatch.undo()
    return np.asarray(cv2.imread(str(folder / "export" / "depth.png"), cv2.IMREAD_UNCHANGED)) / 1000


@pytest.mark.parametrize("canonical", ["label", "none"])
def test_a_run_trains_and_is_scored_with_rays(tmp_path: Path, canonical: str) -> None:
    words = ["demo", *RAYS, "data.size=32,64", "data.frames=24", "train.epochs=1", "train.batch_size=8"]
    words.append(f"data.canonical={canonical}")
    assert main(["train", *words, "--local", "--out", str(tmp_path / "run")]) == 0
    assert "abs_rel" in depthray.evaluate(tmp_path / "run").scores
    assert depthray.load(tmp_path / "run").needs_camera


def test_rays_need_a_canonical_camera() -> None:
    with pytest.raises(UsageError, match=r"model\.rays is for networks of a canonical camera"):
        preflight.load("demo", ["model.rays=true"])
    with pytest.raises(UsageError, match=r"only model\.rays tells the network the camera"):
        preflight.load("demo", ["data.canonical_focal=60", "data.canonical=none"])
    with pytest.raises(UsageError, match=r"no channels for model\.rays"):
        models.build_model(Model(name="depthnet", stacking="original", rays=True), ("image",))
