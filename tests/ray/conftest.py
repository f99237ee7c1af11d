"""One Ray cluster for all tests of the session."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator

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
