"""`depthray calibrate`: a checkpoint of its own whose metres are corrected, from frames or from points."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint

import depthray
from depthray.__main__ import main
from depthray.checkpoints import load, manifest, select
from depthray.exporting.graph import build_graph

SCALE = 1.4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run"), "data.size=32,64")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Rendered rooms whose measured depth is 1.4 times what the network predicts."""
    folder = tmp_path_factory.mktemp("rooms") / "rooms"
    assert main(["data", "render", str(folder), "--frames", "24", "--size", "32", "64", "--layout", "folder"]) == 0
    predictor = depthray.load(checkpoint)
    for image in sorted((folder / "rgb").iterdir()):
        depth = predictor.predict(image).metres * SCALE * 1000
        assert cv2.imwrite(str(folder / "depth" / f"{image.stem}.png"), depth.round().astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def calibrated(checkpoint: Path, rooms: Path) -> Path:
    out = checkpoint.parents[1] / "calibrated"
    assert main(["calibrate", str(checkpoint), "--data", str(rooms)]) == 0
    return select.resolve(out)


def test_metres_are_right_afterwards(checkpoint: Path, calibrated: Path, rooms: Path) -> None:
    before, after = (depthray.evaluate(each, data=rooms, split="all") for each in (checkpoint, calibrated))
    assert before.scores["abs_rel"] == pytest.approx(1 - 1 / SCALE, abs=0.01)
    assert after.scores["abs_rel"] < 0.002
    assert "calibrated" not in before.evaluation.about
    assert after.evaluation.about["calibrated"] == f"x {SCALE:.3f}, by {rooms}"
    image = next((rooms / "rgb").iterdir())
    plain, corrected = (depthray.load(each).predict(image).metres for each in (checkpoint, calibrated))
    assert np.allclose(corrected, SCALE * plain, rtol=1e-3)


def test_the_manifest_says_so_and_the_weights_are_the_same(checkpoint: Path, calibrated: Path, rooms: Path) -> None:
    record, original = manifest.verify(calibrated), manifest.verify(checkpoint)
    assert original.calibration is None and record.files[manifest.WEIGHTS] == original.files[manifest.WEIGHTS]
    fitted = record.calibration
    assert fitted is not None and fitted.data == str(rooms) and fitted.frames == 24
    assert fitted.before == pytest.approx(1 - 1 / SCALE, abs=0.01) and fitted.after < 0.002
    assert json.loads((calibrated / manifest.NAME).read_text())["format"] == manifest.FORMAT_WITH_CALIBRATION


def test_exports_compute_it(calibrated: Path, checkpoint: Path) -> None:
    graphs = [
        build_graph(load.build_network(load.load(each), where=each), ("depth",)) for each in (checkpoint, calibrated)
    ]
    example = graphs[0].example(1, 32, 64)
    with torch.no_grad():
        plain, corrected = (graph(*example)[0] for graph in graphs)
    assert torch.allclose(corrected, SCALE * plain, rtol=1e-3)


def test_it_is_removed_by_a_flag(calibrated: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert main(["calibrate", str(calibrated), "--remove", "--out", str(tmp_path / "plain")]) == 0
    plain = manifest.verify(select.resolve(tmp_path / "plain"))
    assert plain.calibration is None and plain.files == manifest.verify(checkpoint).files


def test_points_do_nearly_as_well(checkpoint: Path, rooms: Path, tmp_path: Path) -> None:
    """Twenty measurements with a tape, to a centimetre."""
    lines, rng = ["image,x,y,metres"], np.random.default_rng(0)
    for image in sorted((rooms / "rgb").iterdir())[:20]:
        depth = cv2.imread(str(rooms / "depth" / f"{image.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert depth is not None
        x, y = rng.integers(64), rng.integers(32)
        lines.append(f"{image},{x},{y},{depth[y, x] / 1000 + rng.normal(0, 0.01):.2f}")
    (tmp_path / "points.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    assert main(["calibrate", str(checkpoint), "--points", str(tmp_path / "points.csv"), "--out", str(out)]) == 0
    fitted = manifest.read(select.resolve(out)).calibration
    assert fitted is not None and np.exp(fitted.shift) == pytest.approx(SCALE, rel=0.02) and fitted.slope == 1.0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{calibrated}"], 2, "is calibrated already (x 1.4"),
        (["{checkpoint}", "--remove"], 2, "is not calibrated"),
        (["{checkpoint}", "--out", "{rooms}"], 2, "exists; choose another folder"),
        (["{checkpoint}", "--data", "/nowhere"], 3, "/nowhere"),
        (["{checkpoint}", "--points", "/nowhere.csv"], 3, "/nowhere.csv: cannot be read"),
        (["{checkpoint}", "--points", "a,b\n1,2"], 3, "no column 'image'; the first line must be image,x,y,metres"),
        (["{checkpoint}", "--points", "image,x,y,metres"], 3, "has no points"),
        (["{checkpoint}", "--points", "image,x,y,metres\na.png,1,2,x"], 3, "line 2: x, y and metres must be numbers"),
        (["{checkpoint}", "--points", "image,x,y,metres\na.png,1,2,-1"], 3, "line 2: metres must be above 0"),
        (
            ["{checkpoint}", "--points", "image,x,y,metres\n{image},640,2,1"],
            3,
            "the point 640, 2 is outside of its 64x32",
        ),
        (
            ["{checkpoint}", "--points", "image,x,y,metres\n{image},1,2,1"],
            3,
            "1 frames with measured depth are too few",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    checkpoint: Path,
    calibrated: Path,
    rooms: Path,
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = next((rooms / "rgb").iterdir())
    given = [word.format(checkpoint=checkpoint, calibrated=calibrated, rooms=rooms, image=image) for word in words]
    if "," in given[-1]:
        (tmp_path / "points.csv").write_text(given[-1])
        given[-1] = str(tmp_path / "points.csv")
    flags = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    assert main(["calibrate", *given, *flags]) == code
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not (tmp_path / "out").exists()


def test_what_gains_nothing_is_refused_with_its_figures(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rooms = tmp_path / "rooms"
    assert main(["data", "render", str(rooms), "--frames", "24", "--size", "32", "64", "--layout", "folder"]) == 0
    predictor = depthray.load(checkpoint)
    for image in sorted((rooms / "rgb").iterdir()):
        depth = predictor.predict(image).metres * 1000
        assert cv2.imwrite(str(rooms / "depth" / f"{image.stem}.png"), depth.round().astype(np.uint16))
    out = tmp_path / "out"
    assert main(["calibrate", str(checkpoint), "--data", str(rooms), "--out", str(out)]) == 3
    printed = capsys.readouterr()
    assert "not calibrated: on held-out frames AbsRel is 0.000" in printed.err and not out.exists()
    assert "| scale and slope |" in printed.out
