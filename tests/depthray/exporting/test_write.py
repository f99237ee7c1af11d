"""An export from a checkpoint to a folder that predicts as the checkpoint does, or nothing but a report."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from checkpoints import write_checkpoint
from model_cards import FACTS, with_facts

from depthray import load
from depthray.__main__ import main
from depthray.checkpoints import manifest
from depthray.errors import ParityError, UsageError
from depthray.exporting import parity_report, write
from depthray.exporting.graph import LEAST_SIDE, build_graph
from depthray.exporting.write import ExportRequest
from depthray.imaging import export as files
from depthray.runtimes import export_folder

FEW = {"calibration": 4, "gate": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return with_facts(write_checkpoint(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "onnx"
    parity = write.export(checkpoint, ExportRequest(target="onnx", out=out, **FEW))
    assert parity.passed
    return out


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC))
    return path


def test_a_folder_says_what_it_holds(checkpoint, exported):
    spec, record = export_folder.verify(exported), manifest.read(checkpoint)
    assert (spec.target, spec.precision, spec.model_file, spec.size) == ("onnx", "fp32", "model.onnx", (64, 96))
    assert [(port.name, port.unit) for port in (*spec.inputs, *spec.outputs)] == [
        ("image", "0 to 255"),
        ("depth", "metres"),
    ]
    assert spec.dynamic_batch and spec.dynamic_size
    assert (spec.smallest_side, spec.largest_side) == (LEAST_SIDE, write.LARGEST_SIDE)
    assert spec.checkpoint_sha256 == record.files[manifest.WEIGHTS].sha256
    assert (spec.epoch, spec.step, spec.fingerprint, spec.scores) == (1, 1, "f", {"abs_rel": 0.1})
    assert spec.versions["onnx opset"] == "20" and spec.versions["onnx"] and spec.versions["torch"]
    assert spec.tested["passed"] and {tuple(row["size"]) for row in spec.tested["rows"]} == {
        *((64, 96), (48, 72), (80, 120))
    }
    names = {path.name for path in exported.iterdir()}
    texts = {"README.md", "MODEL_CARD.md"}
    assert names == {"model.onnx", "model.json", "recipe.yaml", "metrics.json", *texts, *parity_report.FILES}
    assert spec.facts == FACTS
    card = (exported / "MODEL_CARD.md").read_text()
    assert "unet for onnx" in card and FACTS.data.fingerprint in card and "0.1500 to 0.2000" in card
    assert not list(exported.parent.glob(".*"))


def test_it_predicts_as_the_checkpoint_does(checkpoint, exported, photo):
    rgb = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    expected = load(checkpoint, device="cpu").predict(rgb)
    np.testing.assert_allclose(load(exported, device="cpu").predict(rgb), expected, rtol=1e-4)


def test_the_five_lines_of_its_card_give_the_png_of_predict(checkpoint, exported, photo, tmp_path):
    card = (exported / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 5
    for path in (exported / "model.onnx", photo):
        (tmp_path / path.name).symlink_to(path)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rgb = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    expected = files.millimetres(load(checkpoint, device="cpu").predict(rgb)).astype(int)
    png = cv2.imread(str(tmp_path / "depth.png"), cv2.IMREAD_UNCHANGED).astype(int)
    assert np.abs(png - expected).max() <= 1 and (png == expected).mean() > 0.99


@pytest.fixture
def harmed(monkeypatch):
    """Graphs whose depth is off a little."""

    def build(network, targets):
        graph = build_graph(network, targets)
        graph.network.head.bias += 0.01
        return graph

    monkeypatch.setattr(write, "build_graph", build)


def test_beyond_the_bound_the_report_alone_is_written(checkpoint, harmed, tmp_path):
    out = tmp_path / "torch"
    request = ExportRequest(target="torch-export", out=out, **FEW)
    with pytest.raises(ParityError, match=r"not exported.*FAILED"):
        write.export(checkpoint, request)
    assert {path.name for path in out.iterdir()} == set(parity_report.FILES)
    assert not list(tmp_path.glob(".*"))
    write.refuse_existing(out)  # the next try may replace it


def test_what_exists_is_not_replaced(checkpoint, exported, tmp_path):
    for out in (exported, checkpoint, exported / "model.json"):
        with pytest.raises(UsageError, match="exists"):
            write.export(checkpoint, ExportRequest(target="onnx", out=out))


def test_an_export_is_not_exported_again(exported, tmp_path):
    with pytest.raises(UsageError, match="is an export"):
        write.export(exported, ExportRequest(target="onnx", out=tmp_path / "again"))


def test_nothing_is_left_of_an_export_that_failed(checkpoint, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("depthray.exporting.targets.torch_export.write", fail)
    with pytest.raises(KeyboardInterrupt):
        write.export(checkpoint, ExportRequest(target="torch-export", out=tmp_path / "out", **FEW))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onnx", "--precision", "bf16"], "onnx computes in fp32 alone"),
        (["--to", "openvino", "--bound", "-1"], "--bound"),
        (["--to", "openvino", "--max-side", "1"], "--max-side"),
        (["--to", "openvino", "--gate-frames", "0"], "--gate-frames"),
        (["--to", "openvino", "--source", "folder"], "--calibrate"),
    ],
)
def test_wrong_words_are_refused(checkpoint, tmp_path, capsys, words, message):
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_exits_with_3_beyond_the_bound(checkpoint, harmed, tmp_path, capsys):
    few = ["--gate-frames", "4", "--calibration-frames", "4"]
    words = ["export", str(checkpoint), "--to", "torch-export", "--out", str(tmp_path / "out"), *few]
    assert main(words) == 3
    assert "not exported" in capsys.readouterr().err
    assert (tmp_path / "out" / parity_report.TEXT).exists() and not (tmp_path / "out" / "model.json").exists()
    assert main([*words, "--bound", "0.1"]) == 0
    assert "PASSED" in capsys.readouterr().out
    assert export_folder.verify(tmp_path / "out").tested["bound"] == 0.1
