"""Exports of networks with confidence and a mask of valid pixels: further outputs, read as the checkpoint's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import MASKED, write_unsure

from depthray import load
from depthray.checkpoints import load as checkpoints
from depthray.checkpoints import save
from depthray.checkpoints.calibration import Calibration, Temperature
from depthray.exporting.write import Exporter, ExportRequest
from depthray.runtimes import export_folder

TARGETS = ("torch-export",)  # tests/support/export_cases.py has a network with confidence for all runtimes
FEW = {"calibration": 4, "gate": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose metres and confidence are both calibrated."""
    folder = tmp_path_factory.mktemp("run")
    contents = checkpoints.load(write_unsure(folder, "data.size=64,96", *MASKED), state=True)
    fitted = {
        "calibration": Calibration(0.2, 1.1),
        "temperature": Temperature(1.5, before=(0.4, 0.8), after=(0.7, 0.9)),
    }
    return save.write(folder / "calibrated", replace(contents, **fitted))


@pytest.fixture(scope="module")
def exports(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out, exporter = tmp_path_factory.mktemp("exports"), Exporter(checkpoint)
    for target in TARGETS:
        parity = exporter.export(ExportRequest(target=target, out=out / target, **FEW))
        assert parity.passed and {*parity.rows[0].errors} == {"depth", "sigma", "valid"}
    return {target: out / target for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_has_the_confidence_of_its_checkpoint(
    checkpoint: Path, exports: dict[str, Path], target: str
) -> None:
    spec = export_folder.verify(exports[target])
    units = {"depth": "metres", "sigma": "metres", "valid": "probability"}
    assert {port.name: port.unit for port in spec.outputs} == units
    rgb = np.random.default_rng(0).integers(0, 255, (40, 70, 3)).astype(np.uint8)
    ours, theirs = (load(path).predict(rgb) for path in (checkpoint, exports[target]))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    for name in ("sigma", "confidence"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), rtol=1e-3, atol=1e-4)
    assert np.std(ours.confidence) > 0.01
    before, after = (load(path).maps(rgb)["valid"] for path in (checkpoint, exports[target]))
    assert 0.05 < (before >= 0.5).mean() < 0.95
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)
    text = (exports[target] / "README.md").read_text()
    assert "The probability that depth is right within 10 %" in text
    assert "`valid` is the probability that there is a depth to measure" in text


def test_calibrations_of_metres_and_of_confidence_are_both_in_it(checkpoint: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    plain = load(checkpoint.parents[1] / "unsure").predict(rgb)
    both = load(checkpoint).predict(rgb)
    np.testing.assert_allclose(both.metres, np.exp(0.2) * plain.metres**1.1, rtol=1e-4)
    assert both.sigma is not None and plain.sigma is not None
    np.testing.assert_allclose(both.sigma / both.metres, 1.5 * 1.1 * plain.sigma / plain.metres, rtol=1e-4)
