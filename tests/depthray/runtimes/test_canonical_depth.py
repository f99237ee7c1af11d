"""Checkpoints and exports of a canonical camera: metres of the camera that each image comes with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from checkpoints import SMALL, write_checkpoint, write_unsure

import depthray
from depthray import predict
from depthray.__main__ import main
from depthray.checkpoints import load as checkpoints
from depthray.checkpoints import save
from depthray.checkpoints.calibration import Calibration
from depthray.errors import CheckpointError, DataError, UsageError
from depthray.evaluation.calibrating import pairs
from depthray.exporting import gate, readme
from depthray.exporting.write import ExportRequest, export
from depthray.imaging.camera import as_camera
from depthray.runtimes import export_folder
from depthray.runtimes.open import open_model
from depthray.training import preflight

LABEL = "data.canonical_focal=60"
IMAGE = ("data.canonical_focal=60", "data.canonical=image", "data.fit=native", "augment.crop_mode=plain")
PHOTO = np.random.default_rng(1).integers(0, 255, (128, 192, 3)).astype(np.uint8)
CAMERA = (160.0, 160.0, 95.5, 63.5)
WIDE = (112.0, 112.0, 95.5, 63.5)  # 0.7 of its focal length


@pytest.fixture(scope="module")
def label(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unsure(tmp_path_factory.mktemp("label"), LABEL)


@pytest.fixture(scope="module")
def plain(label: Path) -> Path:
    """The same weights without a canonical camera."""
    contents = checkpoints.load(label, state=True)
    section = contents.recipe.data.model_copy(update={"canonical_focal": 0.0})
    recipe = contents.recipe.model_copy(update={"data": section})
    return save.write(label.parents[1] / "plain", replace(contents, recipe=recipe))


def test_metres_and_their_deviation_are_those_of_the_camera(label: Path, plain: Path) -> None:
    """Network's input: 64x96 of 128x192, so that the focal length of 160 is one of 80 there."""
    bare, network = depthray.load(plain).maps(PHOTO), depthray.load(label)
    for camera, factor in ((CAMERA, 80 / 60), (WIDE, 56 / 60)):
        maps = network.maps(PHOTO, camera=camera)
        for key, scale in (("depth", factor), ("sigma", factor), ("confidence", 1.0)):
            np.testing.assert_allclose(maps[key], scale * bare[key], rtol=2e-4)
    assert network.needs_camera and not depthray.load(plain).needs_camera
    wide = np.array([[112, 0, 95.5], [0, 112, 63.5], [0, 0, 1]])
    both = network.predict([PHOTO, PHOTO], camera=[CAMERA, wide])
    assert float((both[1] / both[0]).mean()) == pytest.approx(0.7, rel=1e-4)
    assert float((network.predict([PHOTO, PHOTO], camera=WIDE)[0] / both[1]).mean()) == pytest.approx(1)
    assert network.warnings(PHOTO, camera=None) == []


def test_a_missing_camera_is_one_line_with_what_to_give(label: Path, tmp_path: Path, capsys: Any) -> None:
    network = depthray.load(label)
    with pytest.raises(UsageError, match="--intrinsics fx,fy,cx,cy, camera= in Python"):
        network.predict(PHOTO)
    with pytest.raises(UsageError, match="one of these for each of 2 images"):
        network.predict([PHOTO, PHOTO], camera=[CAMERA])
    image = tmp_path / "room.png"
    cv2.imwrite(str(image), PHOTO)
    given = ["predict", str(label), str(image), "--out", str(tmp_path / "out"), "--format", "npy"]
    assert main(given) == UsageError.exit_code
    assert "--intrinsics fx,fy,cx,cy" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([*given, "--intrinsics", "160,160,95.5,63.5"]) == 0
    expected = network.predict(image, camera=CAMERA)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "room.depth.npy"), expected, rtol=1e-5)


def test_tiles_and_scales_keep_the_metres(label: Path) -> None:
    whole = depthray.load(label).predict(PHOTO, camera=CAMERA)
    for passes in ({"tiles": 2}, {"scales": (0.5,), "flip": True}):
        other = predict.load(label, **passes).predict(PHOTO, camera=CAMERA)
        assert float(np.median(other / whole)) == pytest.approx(1, abs=0.1)


def test_images_are_resized_to_the_focal_length(tmp_path: Path) -> None:
    network = depthray.load(write_checkpoint(tmp_path, *IMAGE))
    depth = network.predict(PHOTO, camera=CAMERA)
    resized = cv2.resize(PHOTO, (72, 48), interpolation=cv2.INTER_AREA)
    small = network.predict(resized, camera=(60, 60, 36, 24))
    again = cv2.resize(np.asarray(small), (192, 128), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(depth, again, rtol=1e-4)
    with pytest.raises(DataError, match="camera that of another image"):
        network.predict(PHOTO, camera=(1, 1, 0, 0))


def test_an_export_says_what_is_outside_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SCALES", (1.0,)), ("BATCHES", (1,))):  # other tests compare at several
        monkeypatch.setattr(gate, name, value)
    checkpoint, out = write_checkpoint(tmp_path, LABEL), tmp_path / "export"
    request = ExportRequest("torch-export", out, calibration=4, gate=4, largest_side=256)
    parity = export(checkpoint, request)
    written = json.loads((out / "model.json").read_text())
    assert written["canonical"] == {"focal": 60.0, "transform": "label"}
    assert "times f / F" in written["outputs"][0]["unit"]
    scaled, resized = "* (fx * 96 / photo.shape[1] * fy * 64 / photo.shape[0]) ** 0.5 / 60", "photo.shape[1] * 60 / fx"
    assert scaled in (out / "README.md").read_text()
    ours, theirs = (depthray.load(each).predict(PHOTO, camera=CAMERA) for each in (checkpoint, out))
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
    assert depthray.load(out).needs_camera
    spec, recipe = export_folder.read(out), preflight.load("demo", [*SMALL, *IMAGE])
    text = readme.markdown(replace(spec, canonical=export_folder.canonical_of(recipe.data)), recipe, parity)
    assert resized in text and scaled not in text and "A frame is resized to the focal length F" in text
    recipe = preflight.load("demo", [*SMALL, LABEL, "data.canonical=none", "model.rays=true"])
    text = readme.markdown(replace(spec, canonical=export_folder.canonical_of(recipe.data)), recipe, parity)
    assert resized not in text and scaled not in text
    export_folder.write(out, replace(spec, canonical=None))
    with pytest.raises(CheckpointError, match="not the recipe of this model"):
        open_model(out, device=depthray.load(checkpoint).device)


def test_a_calibration_is_of_the_depth_that_the_network_knows(label: Path, tmp_path: Path) -> None:
    """Pairs of two focal lengths lie on one line, which corrects both; in metres they would lie on two."""
    network = depthray.load(label)
    contents = checkpoints.load(label, state=True)
    fitted = Calibration(0.1, 1.3, "x", "", 1, before=0.2, after=0.1)
    corrected = depthray.load(save.write(tmp_path / "calibrated", replace(contents, calibration=fitted)))
    for camera, factor in ((CAMERA, 60 / 80), (WIDE, 60 / 56)):
        known = network.canonical_factor((128, 192), as_camera(camera))
        assert known == pytest.approx(factor)
        before, after = (each.predict(PHOTO, camera=camera) for each in (network, corrected))
        line = np.exp(0.1) * np.asarray(factor * before) ** 1.3
        np.testing.assert_allclose(factor * after, line, rtol=2e-2)
        depth = np.asarray(before)
        (pair,) = pairs.of_points({Path("a"): [(3, 4, 2.0)]}, iter([(depth, known)]))
        assert pair.predicted == pytest.approx(np.log(factor * depth[4, 3]))
        assert pair.measured == pytest.approx(np.log(2 * factor))


def test_scores_are_of_metres(label: Path, plain: Path, tmp_path: Path) -> None:
    """The score is that of the network's depth times f / F, and a camera given for frames is of no others."""
    folder = tmp_path / "rooms"
    assert main(["data", "render", str(folder), "--frames", "6", "--size", "64", "96", "--layout", "folder"]) == 0
    index = folder / "index.csv"
    header, *rows = (line.split(",") for line in index.read_text().splitlines())
    kept = [place for place, name in enumerate(header) if name not in ("fx", "fy", "cx", "cy")]
    index.write_text("\n".join(",".join(line[place] for place in kept) for line in (header, *rows)))
    align = "eval.protocol=median-scaled"  # of which the scale is no matter
    for protocol, same in ((), False), ((align,), True):
        ours = depthray.evaluate(label, "data.intrinsics=90,90,47.5,31.5", *protocol, data=folder, split="all").scores
        theirs = depthray.evaluate(plain, *protocol, data=folder, split="all").scores
        assert (ours["abs_rel"] == pytest.approx(theirs["abs_rel"], rel=1e-4)) == same
    with pytest.raises(DataError, match="no camera is known"):
        depthray.evaluate(label, data=folder, split="all")
    camera = "data.intrinsics=90,90,47.5,31.5"
    compared = depthray.compare(plain, label, overrides=[camera], data=folder, split="all")
    (scored,) = compared.sets
    alone = depthray.evaluate(label, camera, data=folder, split="all").scores["abs_rel"]
    (found,) = (each for each in scored.scores[1].overall if each.metric == "abs_rel")
    assert found.after.mean == pytest.approx(alone)
