"""One Ray cluster for all tests of the session, and a limit on hangs in place of one on time."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import hangs
import pytest

TRIES = 5  # of a cluster to start, for a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests may take as long as they work; pytest's own limit ends only what the watch cannot interrupt."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * hangs.SLOW, method="thread"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with hangs.watched():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    with hangs.watched(*([folder] if folder else [])):
        return (yield)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Commands that run in this process set variables for Ray, which must not reach what the next test starts."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """The address of a local cluster of 4 logical CPUs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        folder = tempfile.mkdtemp(prefix="ray")  # a short path: socket names are limited to 107 bytes
        for tries in range(1, TRIES + 1):
            try:
                ray.init("local", num_cpus=4, _temp_dir=folder, include_dashboard=False, log_to_driver=False)
                break
            except Exception:  # Ray gives a node 30 s to start and raises no class of its own
                ray.shutdown()
                if tries == TRIES:
                    raise
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
