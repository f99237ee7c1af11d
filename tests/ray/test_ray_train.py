"""Training on Ray that cannot be: it is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.training import kills
from depthray.__main__ import main


def test_more_workers_than_the_cluster_has_are_refused_at_once(
    cluster_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--out", str(tmp_path / "run"), "--address", cluster_address, "--workers", "8"]
    assert main(["train", *kills.OVERRIDES, *flags]) == 5
    assert "8 workers x 1 CPU were requested, the cluster has 4 CPUs" in capsys.readouterr().err


def test_an_indivisible_batch_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "--workers", "3"]) == 2
    assert "train.batch_size=16" in capsys.readouterr().err
