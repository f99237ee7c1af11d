"""One Ray cluster for all tests of the session."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """The address of a local cluster of 4 logical CPUs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        folder = tempfile.mkdtemp(prefix="ray")  # a short path: socket names are limited to 107 bytes
        ray.init("local", num_cpus=4, _temp_dir=folder, include_dashboard=False, log_to_driver=False)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def small() -> list[str]:
    """Words of a recipe that trains for seconds: 3 epochs of 8 steps, saved every 3 steps, in float32."""
    return [
        "demo",
        "data.size=32,64",
        "data.frames=72",
        "train.epochs=3",
        "train.batch_size=8",
        "train.save_every_steps=3",
        "train.precision=fp32",
        "train.log_seconds=0.001",
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder that does not exist yet."""
    return tmp_path / "run"
