"""Training on Ray that cannot be: it is refused before anything starts, or ends with one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_input import FILES
from frames import folder_dataset

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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_a_mistake_found_by_a_worker_is_its_one_line_and_exit_code(
    cluster_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_dataset(tmp_path / "data")
    for image in (data / "rgb").iterdir():
        image.write_text("text")  # which is not read before a worker does
    overrides = [*FILES, "data.workers=0", "train.precision=fp32"]
    flags = [
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--cpus-per-worker",
        "1",
        "--address",
        cluster_address,
    ]
    assert main(["train", "demo", *overrides, *flags]) == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("depthray: ") and "not a readable image" in said.splitlines()[-1]
