"""One Ray cluster for all tests of the session, and a limit on hangs in place of one on time."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import hangs
import object_store
import pytest

from chaos.training import kills
from depthray.__main__ import main
from depthray.config.ray_environment import start_local

# Workers have niceness 15 otherwise, and tests beside these leave them no time. Clusters of commands inherit it.
NICENESS = {"RAY_worker_niceness": "0"}


def pytest_itemcollected(item: pytest.Item) -> None:
    """These tests may take as long as they work; pytest's own limit ends only what the watch cannot interrupt."""
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
def _own_process_state() -> Iterator[None]:
    """Undo what commands in this process leave: variables for Ray, and handlers of signals."""
    variables, signals = dict(os.environ), (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in signals}
    yield
    os.environ.clear()
    os.environ.update(variables)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def cluster_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a local cluster of 4 logical CPUs."""
    # Its workers have the environment of this process: the cache, and credentials of the stores of tests.
    os.environ |= {**object_store.SETTINGS, **NICENESS, "DEPTHRAY_CACHE": str(tmp_path_factory.mktemp("cache"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        folder = tempfile.mkdtemp(prefix="ray")  # a short path: socket names are limited to 107 bytes
        start_local(ray, num_cpus=4, _temp_dir=folder, include_dashboard=False, log_to_driver=False)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def undisturbed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that others kill, trained without Ray: what one worker computes must equal it bit for bit."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(["train", *kills.OVERRIDES, "--local", "--out", str(run)]) == 0
    return run
