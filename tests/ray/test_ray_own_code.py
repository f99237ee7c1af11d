"""An architecture, a data set form, a loss term and a protocol from outside the package, on two Ray workers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from own_package import forget, write_package
from PIL import Image

from depthray.__main__ import main
from depthray.checkpoints import manifest, select

OWN = [
    *("model.name=mypkg.net", "data.source=./frames.py"),
    *("loss.terms.mypkg.losses.own_loss=0.5", "eval.protocol=mypkg.protocols.NEAR"),
]
SMALL = ["data.size=32,32", "train.batch_size=4", "train.epochs=1", "eval.batch_size=2", "data.val_fraction=0.5"]


def pairs(folder: Path) -> Path:
    """4 scenes of 2 frames, as the example of a data set form reads them."""
    for number in range(8):
        scene = folder / f"scene{number // 2}"
        scene.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 25 * number, np.uint8)).save(scene / f"{number}.png")
        np.save(scene / f"{number}.npy", np.full((32, 32), 1 + number / 8, np.float32))
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_code_of_ones_own_trains_on_two_workers(
    cluster_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(monkeypatch, tmp_path)
    (tmp_path / "frames.py").write_text((write_package(tmp_path) / "frames.py").read_text())
    data, run = str(pairs(tmp_path / "data")), tmp_path / "run"
    flags = ["--data", data, "--out", str(run), "--address", cluster_address, "--workers", "2"]
    assert main(["train", "demo", *OWN, *SMALL, *flags]) == 0
    record = manifest.verify(select.resolve(run))
    names = {"mypkg.net", "./frames.py", "mypkg.losses.own_loss", "mypkg.protocols.NEAR"}
    assert {each.name for each in record.code} == names
    forget(monkeypatch, tmp_path)  # another process, which has named nothing
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 2
    assert "add --trust" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--trust", "--out", str(tmp_path / "scores")]) == 0
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["protocol"]["name"] == "near"
