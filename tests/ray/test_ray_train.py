"""Ray Train: lost workers are replaced, a lost driver is resumed, and mistakes come back as one line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import hangs
import pytest

from chaos.training import kills
from depthray.__main__ import main


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run left alone, without Ray: what one worker computes must equal it bit for bit."""
    run = tmp_path_factory.mktemp("straight") / "run"
    kills.finish(kills.start(run, "--local"))
    return run


def test_a_killed_worker_is_replaced_and_training_goes_on(cluster_address: str, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    kills.finish(kills.start(straight, launcher=(*kills.TORCHRUN, "2")))
    flags = ("--address", cluster_address, "--workers", "2", "--cpus-per-worker", "1")
    kills.killed_run(tmp_path / "run", "worker", 11, *flags, rng=random.Random(0))
    assert kills.distance(tmp_path / "run", straight) <= 1e-6
    assert any("resumed from" in str(record.get("text")) for record in kills.records(tmp_path / "run"))
    epochs: list[Any] = [record["epoch"] for record in kills.records(tmp_path / "run") if record["kind"] == "epoch"]
    assert sorted(set(epochs)) == [1, 2, 3]


def test_a_killed_driver_is_resumed_to_the_same_weights(cluster_address: str, straight: Path, tmp_path: Path) -> None:
    flags = ("--address", cluster_address, "--cpus-per-worker", "1")
    kills.killed_run(tmp_path / "run", "driver", 13, *flags, rng=random.Random(0))
    assert kills.distance(tmp_path / "run", straight) == 0.0


def test_a_mistake_found_by_a_worker_is_one_line_with_its_exit_code(cluster_address: str, tmp_path: Path) -> None:
    overrides = [*kills.OVERRIDES, "model.weights=" + str(tmp_path / "missing.pth")]
    process = kills.start(tmp_path / "run", "--address", cluster_address, overrides=overrides)
    output = hangs.output_of(process)
    assert process.returncode == 2, output
    assert "missing.pth" in output.strip().splitlines()[-1]
    assert "Traceback" not in output


def test_more_workers_than_the_cluster_has_is_said_at_once(cluster_address: str, tmp_path: Path) -> None:
    process = kills.start(tmp_path / "run", "--address", cluster_address, "--workers", "8")
    output = hangs.output_of(process)
    assert process.returncode == 5, output
    assert "8 workers x 1 CPUs were requested, the cluster has 4 CPUs" in output


def test_an_indivisible_batch_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "--workers", "3"]) == 2
    assert "train.batch_size=16" in capsys.readouterr().err
