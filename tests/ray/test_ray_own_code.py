"""An architecture, a data set form, a loss term and a protocol from outside the package, on two Ray workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_package import NAMES, OWN, forget, write_all, write_pairs

from depthray.__main__ import main
from depthray.checkpoints import manifest, select

SMALL = ["data.size=32,32", "train.batch_size=4", "train.epochs=1", "eval.batch_size=2", "data.val_fraction=0.5"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_code_of_ones_own_trains_on_two_workers(
    cluster_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(monkeypatch, tmp_path)
    write_all(tmp_path)
    data, run = str(write_pairs(tmp_path / "data")), tmp_path / "run"
    flags = ["--data", data, "--out", str(run), "--address", cluster_address, "--workers", "2"]
    assert main(["train", "demo", *OWN, *SMALL, *flags]) == 0
    record = manifest.verify(select.resolve(run))
    assert {each.name for each in record.code} == NAMES
    forget(monkeypatch, tmp_path)  # another process, which has named nothing
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 2
    assert "add --trust" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--trust", "--out", str(tmp_path / "scores")]) == 0
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["protocol"]["name"] == "near"
