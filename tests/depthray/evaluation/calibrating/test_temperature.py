"""The factor of predicted deviations: what is fitted, what is refused, and that all that predicts applies it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from checkpoints import write_checkpoint, write_unsure

import depthray
from depthray.__main__ import main
from depthray.checkpoints import load, manifest, select
from depthray.errors import DataError
from depthray.evaluation.calibrating.temperature import FrameDeviations, decide, fit, miss
from depthray.weights.families import own

TRUE = 2.5  # how many times larger errors are than the network says


def deviations(factor: float, *, scenes: int = 6, family: str = "laplace") -> list[FrameDeviations]:
    rng = np.random.default_rng(0)
    draws = [rng.laplace(0, np.sqrt(0.5), 1500) if family == "laplace" else rng.normal(size=1500) for _ in range(12)]
    return [FrameDeviations(f"scene-{place % scenes}", factor * np.abs(each)) for place, each in enumerate(draws)]


@pytest.mark.parametrize("family", ["laplace", "gaussian"])
@pytest.mark.parametrize("factor", [0.3, 1.7, 5.0])
def test_the_factor_is_that_of_the_errors(factor: float, family: str) -> None:
    assert fit(deviations(factor, family=family), family) == pytest.approx(factor, rel=0.03)
    found = decide(deviations(factor, family=family), family)
    assert found.gains and found.factor == pytest.approx(factor, rel=0.03) and found.how == "6 scenes, in 6 parts"
    assert found.after == pytest.approx((0.68, 0.95), abs=0.01) and miss(found.before) > 0.1


def test_a_few_huge_errors_change_little() -> None:
    frames = deviations(1.7)
    spoilt = [frame._replace(values=np.concatenate([frame.values, np.full(15, 1e6)])) for frame in frames]
    assert fit(spoilt, "laplace") == pytest.approx(fit(frames, "laplace"), rel=0.05)


def test_what_is_right_already_gains_nothing() -> None:
    assert not decide(deviations(1.0), "laplace").gains
    assert decide(deviations(3.0, scenes=1), "laplace").how.startswith("5 parts of one scene")
    with pytest.raises(DataError, match="4 frames with measured depth are too few"):
        decide(deviations(2.0)[:4], "laplace")


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unsure(tmp_path_factory.mktemp("run"), "data.size=32,64")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, unsure: Path) -> Path:
    """Rendered rooms whose measured depth is off by TRUE times the deviations that the network predicts."""
    folder, rng = tmp_path_factory.mktemp("rooms") / "rooms", np.random.default_rng(0)
    assert main(["data", "render", str(folder), "--frames", "12", "--size", "32", "64", "--layout", "folder"]) == 0
    predictor = depthray.load(unsure)
    for image in sorted((folder / "rgb").iterdir()):
        depth = predictor.predict(image)
        assert depth.sigma is not None
        share = np.minimum(TRUE * depth.sigma / depth.metres, 0.9)
        off = rng.laplace(0, np.sqrt(0.5), depth.shape) * share
        stored = np.clip(depth.metres * np.exp(off), 0.05, 9.9) * 1000
        assert cv2.imwrite(str(folder / "depth" / f"{image.stem}.png"), stored.round().astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def calibrated(unsure: Path, rooms: Path) -> Path:
    out = unsure.parents[1] / "sure"
    assert main(["calibrate", str(unsure), "--confidence", "--data", str(rooms), "--out", str(out)]) == 0
    return select.resolve(out)


def test_the_manifest_says_so_and_the_weights_are_the_same(unsure: Path, calibrated: Path, rooms: Path) -> None:
    record = manifest.verify(calibrated)
    assert record.files == manifest.verify(unsure).files and record.calibration is None
    fitted = record.temperature
    assert fitted is not None and fitted.data == str(rooms) and fitted.frames == 12 and fitted.factor > 1.3
    assert miss(fitted.after) < 0.5 * miss(fitted.before)
    assert json.loads((calibrated / manifest.NAME).read_text())["format"] == manifest.FORMAT_WITH_TEMPERATURE


def test_prediction_and_evaluation_apply_it(unsure: Path, calibrated: Path, rooms: Path) -> None:
    factor = manifest.read(calibrated).temperature.factor
    image = next((rooms / "rgb").iterdir())
    plain, scaled = (depthray.load(each).predict(image) for each in (unsure, calibrated))
    assert np.array_equal(plain, scaled)
    np.testing.assert_allclose(scaled.sigma, factor * plain.sigma, rtol=1e-4)
    assert (scaled.confidence < plain.confidence).all()
    before, after = (depthray.evaluate(each, data=rooms, split="all") for each in (unsure, calibrated))
    assert after.evaluation.about["temperature"] == f"x {factor:.3f}, by {rooms}"
    assert abs(after.scores["coverage68"] - 0.68) < abs(before.scores["coverage68"] - 0.68)
    assert after.scores["abs_rel"] == before.scores["abs_rel"]


def test_it_is_removed_by_a_flag_and_no_part_of_weights(unsure: Path, calibrated: Path, tmp_path: Path) -> None:
    assert main(["calibrate", str(calibrated), "--remove", "--out", str(tmp_path / "plain")]) == 0
    assert manifest.verify(select.resolve(tmp_path / "plain")).temperature is None
    found = own.of_checkpoint(load.load(calibrated), where="x").weights
    assert found.keys() == load.load(unsure).weights.keys()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{calibrated}", "--confidence"], 2, "is calibrated already (x "),
        (["{calibrated}"], 2, "is calibrated already (x "),
        (["{unsure}", "--confidence", "--points", "x.csv"], 2, "--confidence needs frames with measured depth"),
        (["{plain}", "--confidence"], 2, "predicts no confidence; train it with model.uncertainty=laplace"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    unsure: Path,
    calibrated: Path,
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = write_checkpoint(tmp_path / "run") if "{plain}" in words else ""
    given = [word.format(unsure=unsure, calibrated=calibrated, plain=plain) for word in words]
    assert main(["calibrate", *given, "--out", str(tmp_path / "out")]) == code
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not (tmp_path / "out").exists()
