"""Ray Train: lost workers are replaced, and mistakes come back as one line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from bad_input import FILES
from frames import folder_dataset
from process_groups import launch

from chaos.training import kills
from depthray.__main__ import main

TRAIN = "import sys; from depthray.__main__ import main; sys.exit(main(sys.argv[1:]))"


def test_a_killed_worker_is_replaced_and_training_continues(cluster_address: str, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    launch(TRAIN, 2, "train", *kills.OVERRIDES, "--out", str(undisturbed))
    flags = ("--address", cluster_address, "--workers", "2", "--cpus-per-worker", "1")
    kills.killed_run(tmp_path / "run", "worker", 11, *flags, rng=random.Random(0))
    assert kills.distance(tmp_path / "run", undisturbed) <= 1e-6
    assert any("resumed from" in str(record.get("text")) for record in kills.records(tmp_path / "run"))
    epochs: list[Any] = [record["epoch"] for record in kills.records(tmp_path / "run") if record["kind"] == "epoch"]
    assert sorted(set(epochs)) == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_a_mistake_found_by_a_worker_is_one_line_with_its_exit_code(
    cluster_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_dataset(tmp_path / "data")
    for image in (data / "rgb").iterdir():
        image.write_text("text")  # which is not read before a worker does
    flags = ["--data", str(data), "--out", str(tmp_path / "run"), "--address", cluster_address]
    assert main(["train", "demo", *FILES, "data.workers=0", *flags]) == 3
    printed = capsys.readouterr()
    assert "not a readable image" in printed.err.strip().splitlines()[-1]
    assert "Traceback" not in printed.out + printed.err


def test_more_workers_than_the_cluster_has_are_refused_at_once(
    cluster_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--out", str(tmp_path / "run"), "--address", cluster_address, "--workers", "8"]
    assert main(["train", *kills.OVERRIDES, *flags]) == 5
    assert "8 workers x 1 CPU were requested, the cluster has 4 CPUs" in capsys.readouterr().err


def test_an_indivisible_batch_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "--workers", "3"]) == 2
    assert "train.batch_size=16" in capsys.readouterr().err
