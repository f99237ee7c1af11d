"""The notebook that searches on Ray Tune and serves on Ray Serve, on the session's cluster."""

from __future__ import annotations

import socket
from pathlib import Path

import notebooks
import pytest
from paths import ROOT

SMALL = ["data.size=32,64", "data.frames=24", "train.batch_size=8", "eval.batch_size=4", "train.epochs=2"]


@pytest.mark.thorough
def test_the_notebook_searches_trains_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cluster_address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made = notebooks.run(
        ROOT / "examples" / "search_and_serve.ipynb", overrides=SMALL, trials=2, port=port, cluster=cluster_address
    )
    assert made["search"].finished and made["search"].best and made["run"].finished
    assert {each.name for each in made["study"].trials} >= {"default", "0000", "0001"}
    assert made["estimate"].metres.shape == (240, 320) and len(made["answers"]) == 20
    printed = capfd.readouterr().out
    assert "images a second" in printed and made["estimate"].model in printed
    assert made["server"].returncode == 0, "the server ends in order"
