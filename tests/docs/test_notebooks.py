"""The notebooks of examples/: they parse, have no outputs, and run; the one with a cluster is in tests/ray."""

from __future__ import annotations

import ast
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import notebooks
import numpy as np
import pytest
from paths import ROOT
from rendered import drawn_once

import depthray

FOLDER = ROOT / "examples"
SMALL = [
    *("model.encoder=tiny", "model.weights=", "data.size=32,64", "train.batch_size=8", "train.epochs=2"),
    "curriculum.sizes=[]",
]


@pytest.fixture(autouse=True)
def _small_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new folder; training in this process takes over the signals, which are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPTHRAY_LOG", "csv")  # pictures for TensorBoard cost more than these trainings
    with drawn_once():
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_there_are_three_notebooks() -> None:
    assert [path.stem for path in notebooks.NOTEBOOKS] == ["complete_lidar", "fine_tune", "search_and_serve"]


@pytest.mark.parametrize("notebook", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_parses_and_is_committed_without_outputs(notebook: Path) -> None:
    text = notebook.read_text(encoding="utf-8")
    read = json.loads(text)
    assert read["nbformat"] == 4 and read["metadata"]["kernelspec"]["name"] == "python3" and text.isascii()
    for cell in read["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    shown = notebooks.cells(notebook)
    assert shown[0].text.startswith("# ") and sum(notebooks.PARAMETERS in cell.tags for cell in shown) == 1
    for cell in shown:
        assert cell.text.strip()
        if cell.kind == "code":
            ast.parse(cell.text)


@pytest.mark.parametrize("notebook", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_one_of_jupyter(notebook: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs pip install nbformat")
    nbformat.validate(nbformat.read(notebook, as_version=4))


def test_fine_tuning_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    exported = []
    monkeypatch.setattr(depthray, "export", lambda run, **options: exported.append((run, options)), raising=False)
    made = notebooks.run(FOLDER / "fine_tune.ipynb", frames=24, height=48, width=64, overrides=SMALL, further=SMALL)
    assert made["second"].finished and made["depth"].shape == (48, 64) and len(made["points"]) == 48 * 64
    assert Path("work/depth.png").stat().st_size and Path("work/scores/sheet.png").is_file()
    printed = capsys.readouterr().out
    assert "zero-shot" in printed and "to be beaten" in printed  # of gain.md, and of `data stats`
    assert exported == [(made["second"], {"to": "onnx", "out": "work/exported"})]
    assert "<img" in made["depth"]._repr_html_()


def test_completion_runs(capsys: pytest.CaptureFixture[str]) -> None:
    made = notebooks.run(FOLDER / "complete_lidar.ipynb", frames=24, height=48, width=64, overrides=SMALL)
    assert made["run"].finished and made["completed"].shape == (48, 64)
    assert made["shown"][-1].size == (3 * 64, 48)
    printed = capsys.readouterr().out
    assert all(pattern in printed for pattern in ("lidar64", "lidar16", "lidar8"))
    # Points of the scanner are, through its mounting, the samples that they were made of.
    samples, truth = made["samples"], made["frame"]["depth"]
    seen = samples > 0
    assert 30 < np.count_nonzero(seen) <= len(made["points"])
    assert np.median(np.abs(samples[seen] / truth[seen] - 1)) < 0.03  # the noise of the scanner
