"""The spread of predictions in an export: one graph of all networks and the mirrored image, or its factor alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from exports import write_export

from depthray import load, models
from depthray.__main__ import main
from depthray.checkpoints import load as checkpoints
from depthray.checkpoints import save
from depthray.checkpoints.calibration import Temperature
from depthray.errors import UsageError
from depthray.exporting.exported_spread import spread_of
from depthray.exporting.write import ExportRequest, export
from depthray.runtimes import export_folder
from depthray.runtimes.spread import Spread

RGB = np.random.default_rng(0).integers(0, 255, (32, 64, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks of one recipe; a factor is fitted to their spread with mirrored images."""
    folder = tmp_path_factory.mktemp("runs")
    first = write_checkpoint(folder / "a", "data.size=32,64")
    other, generator = checkpoints.load(first, state=True), torch.Generator().manual_seed(1)
    for name, value in other.weights.items():
        if name.endswith("weight") and value.ndim == 4:
            other.weights[name] = value + 0.05 * torch.randn(value.shape, generator=generator)
    second = save.write(folder / "b", other)
    fitted = replace(checkpoints.load(first, state=True), temperature=Temperature(3.0, of="flip"))
    return [save.write(folder / "c", fitted), second]


def test_one_graph_has_both_passes_and_the_factor(seeds: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    parity = export(seeds[0], ExportRequest("torch-export", out, calibration=8, gate=4, spread=Spread(flip=True)))
    assert parity.passed and {*parity.rows[0].errors} == {"depth", "sigma"} and len(parity.rows) > 2  # of any size
    expected = load(seeds[0], confidence="flip").predict(RGB)
    found = load(out)
    depth = found.predict(RGB)
    assert found.has_confidence and found.uncertainty == "laplace" and export_folder.read(out).temperature is None
    np.testing.assert_allclose(depth, expected, rtol=1e-4)
    np.testing.assert_allclose(depth.sigma, expected.sigma, rtol=1e-3)  # three times the spread
    np.testing.assert_allclose(depth.confidence, expected.confidence, atol=1e-4)
    text = (out / "README.md").read_text()
    assert "by the spread of predictions: flip." in text and "1 - exp(-sqrt(2)" in text


def test_the_networks_of_an_ensemble_are_one(seeds: list[Path]) -> None:
    contents = checkpoints.load(seeds[0])
    own = checkpoints.build_network(contents, where=seeds[0]).eval()
    network, name = spread_of(Spread(flip=True, others=(seeds[1],)), own, contents)
    expected = load(seeds[0], confidence="flip", ensemble=[seeds[1]])
    assert name == Spread(flip=True).name_of([checkpoints.load(seeds[1]).weights_sha256])
    batch: Any = {"image": torch.rand(1, 3, 32, 64)}
    with torch.no_grad():
        ours, theirs = models.run(network, batch), models.run(expected.model, batch)
    for key in ("depth", "log_sigma"):
        torch.testing.assert_close(ours[key], theirs[key])


def test_an_export_without_it_keeps_the_factor_for_who_asks(tmp_path: Path) -> None:
    plain = write_export(tmp_path / "plain")
    fitted = write_export(tmp_path / "fitted", temperature=Temperature(3.0, of="flip", before=(0.1, 0.2)))
    ids = np.zeros((32, 64), np.int64)
    before, after = (load(path, confidence="flip").predict(RGB, semantics=ids) for path in (plain, fitted))
    np.testing.assert_allclose(after.sigma, 3 * before.sigma, rtol=1e-4)
    assert load(fitted).predict(RGB, semantics=ids).sigma is None
    assert "temperature" not in (plain / "model.json").read_text()  # as versions before wrote it


def test_a_spread_of_a_spread_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_export(tmp_path / "made", spread="flip")
    assert export_folder.read(made).spread == "flip"
    with pytest.raises(UsageError, match=r"has that of a spread already \(flip\)"):
        load(made, confidence="flip")
    checkpoint = write_checkpoint(tmp_path)
    words = ["export", str(checkpoint), "--to", "onnx", "--out", str(tmp_path / "out"), "--ensemble", str(made)]
    assert main(words) == 2
    assert "is an export; give the checkpoint that it was made of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
