"""Whatever takes a checkpoint takes an export, but for training."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from exports import TinyGraph, write_export

from depthray import load
from depthray.__main__ import main
from depthray.checkpoints import manifest
from depthray.errors import CheckpointError, UsageError
from depthray.evaluation.completion.curve import completion_curve
from depthray.runs import listing, locate
from depthray.runtimes import device_errors, export_folder
from depthray.runtimes.open import open_model
from depthray.storage import environment
from depthray.storage.folders import open_folder

FRAMES = ["data.frames=24", "eval.batch_size=4"]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("models") / "tiny-onnx")


@pytest.fixture
def photo(tmp_path):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "photo.png"), rng.integers(0, 256, (48, 72, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "classes.png"), rng.integers(0, 9, (48, 72), np.uint8))
    return tmp_path / "photo.png"


def test_an_array_is_predicted(export):
    predictor = load(export)
    rng = np.random.default_rng(0)
    rgb, classes = rng.integers(0, 256, (32, 48, 3), np.uint8), rng.integers(0, 9, (32, 48))
    assert (predictor.runtime, predictor.device, predictor.depth_kind) == ("onnx", torch.device("cpu"), "metric")
    with torch.no_grad():
        tensors = torch.from_numpy(rgb).permute(2, 0, 1)[None].float(), torch.from_numpy(classes)[None, None]
        depth, mask = TinyGraph().eval()(*tensors)
    maps = predictor.maps(rgb, semantics=classes)
    np.testing.assert_allclose(maps["depth"], depth[0, 0], rtol=1e-5)
    np.testing.assert_allclose(maps["mask"], mask[0, 0], atol=1e-6)
    assert predictor.predict(rgb, semantics=classes).shape == (32, 48)
    assert open_model(write_checkpoint(export.parent / "run"), device=torch.device("cpu")).runtime == "eager"


def test_a_device_that_its_runtime_does_not_know_is_refused(export, monkeypatch):
    monkeypatch.setattr(device_errors, "chosen", lambda name: torch.device(name or "meta"))
    assert load(export).device == torch.device("cpu")
    with pytest.raises(UsageError, match=r"device cuda: .* is an export that computes on the CPU"):
        load(export, device="cuda")


def test_photographs_are_predicted_and_measured(export, photo, capsys):
    classes = str(photo.with_name("classes.png"))
    out = photo.parent / "out"
    assert main(["predict", str(export), str(photo), "--semantics", classes, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"photo.depth.png", "photo.colour.png", "photo.mask.png"}
    assert main(["measure", str(export), str(photo), "1", "2", "30", "40", "--semantics", classes]) == 0
    assert "distance" in capsys.readouterr().out


def test_it_is_scored(export, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(export), "data.targets=depth", *FRAMES]) == 0
    (written,) = (tmp_path / "evaluations").iterdir()
    assert written.name.startswith("tiny-onnx-val-")
    about = json.loads((written / "evaluation.json").read_text(encoding="utf-8"))
    assert about["runtime"] == "onnx" and about["checkpoint"].endswith("tiny-onnx (epoch 3, step 30)")
    arguments = ["view", str(export), "data.targets=depth", *FRAMES, "--frames", "1", "--no-recording", "--out", "view"]
    assert main(arguments) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_a_curve_of_completion_is_computed(export):
    recipe = open_model(export, device=torch.device("cpu")).recipe
    data = recipe.data.model_copy(
        update={"inputs": (*recipe.data.inputs, "sparse"), "targets": ("depth",), "frames": 8}
    )
    curve = completion_curve(
        export, recipe.model_copy(update={"data": data}), [0, 5], side="all", device=torch.device("cpu")
    )
    assert [point.samples for point in curve.points] == [0, 5]


def test_native_code_needs_a_flag(tmp_path, photo, capsys):
    folder = write_export(tmp_path / "native", "aoti")
    assert main(["predict", str(folder), str(photo)]) == 2
    assert main(["evaluate", str(folder), *FRAMES]) == 2
    assert capsys.readouterr().err.count("add --trust if you made it yourself") == 2
    # Its code is not code at all: trusted, it is opened, and that fails.
    assert main(["evaluate", str(folder), *FRAMES, "--trust"]) == CheckpointError.exit_code
    assert "aoti does not open it" in capsys.readouterr().err


def test_it_is_itself_wherever_a_run_may_be_named(export, tmp_path, monkeypatch):
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "cache"))
    assert locate.resolve(export) == export
    copy = locate.resolve(f"file://{export}")
    assert copy.is_relative_to(tmp_path / "cache")
    assert export_folder.identity(copy) == export_folder.identity(export)
    (copy / "model.onnx").write_bytes(b"damaged")
    assert export_folder.verify(locate.resolve(f"file://{export}"))


def test_another_export_at_an_address_is_downloaded_anew(export, tmp_path, monkeypatch):
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "cache"))
    moved = shutil.copytree(export, tmp_path / "store")
    before = locate.resolve(f"file://{moved}")
    first = export_folder.identity(before)
    (moved / "README.md").write_text("new", encoding="utf-8")
    export_folder.write(moved, export_folder.parse((moved / "model.json").read_bytes(), where=moved)[0])
    assert export_folder.identity(locate.resolve(f"file://{moved}")) != first
    (moved / "model.onnx").write_bytes(b"damaged")
    (moved / "README.md").write_text("old", encoding="utf-8")
    shutil.rmtree(before)
    with pytest.raises(CheckpointError, match=r"store/.*: \d+ bytes instead of"):
        locate.resolve(f"file://{moved}")


@pytest.mark.parametrize("file", ["", "model.onnx"])
def test_no_run_starts_from_it(export, tmp_path, file, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "demo", "data.size=32,48", "--local", "--from", str(export / file), "--out", out]) == 2
    assert "is an export, whose weights are not trained on; name the checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_no_run_is_written_into_it(export, resume, capsys):
    before = export_folder.identity(export)
    arguments = ["train", "demo", "data.size=32,64", "data.frames=24", "--local", "--out", str(export), *resume]
    assert main(arguments) == 2
    assert "is an export, which is not trained" in capsys.readouterr().err
    assert export_folder.verify(export) and export_folder.identity(export) == before


def test_it_is_no_run(export, tmp_path):
    shutil.copytree(export, tmp_path / "runs" / "exported")
    run = write_checkpoint(tmp_path / "runs" / "trained").parents[1]
    (run / "recipe.yaml").write_bytes((run / "checkpoints" / "epoch-0001-step-00000001" / "recipe.yaml").read_bytes())
    shutil.copytree(export, run / "exports" / "onnx")
    assert [found.name for found in listing.find_runs(open_folder(tmp_path / "runs"))] == ["trained"]
    assert list(listing.find_runs(open_folder(export))) == []
    with pytest.raises(UsageError, match="holds no run \\(it is an export\\)"):
        listing.open_run(export)
    assert manifest.NAME != export_folder.NAME
