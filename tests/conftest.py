"""Settings every test needs before torch or Ray is imported."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest

from depthray import waiting
from depthray.config import own_code

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small arrays: threads only get in each other's way
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["DEPTHRAY_SERVE_MODEL__RUNTIME"] = "eager"  # exports take seconds; tests/serve/registry has those of them
os.environ["DEPTHRAY_LOG"] = (
    ""  # curves and pictures of a run take longer than its few steps; tests of them ask for them
)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"  # the session's own loopback cluster; no token file is left in the home folder
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
os.setpriority = lambda *_: None  # `serve promote` lowers its own, which would slow all tests after it in this process
waiting.EVERY = 3600.0  # tests count lines, and a loaded machine may be slower than people are patient


# Files of few tests that take half a minute: begun last, one process would be left with them while the others idle.
LONG = (
    "test_contributing.py",
    "test_distributed.py",
    "test_elastic.py",
    "test_every_recipe.py",
    "test_gpu_benchmark.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; `--no-loadscope-reorder` keeps this order where files are shared out to processes."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="module")
def curves() -> Iterator[None]:
    """Runs write TensorBoard, results.csv and results.png, as outside of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DEPTHRAY_LOG")
        yield


def pytest_collection_finish() -> None:
    """Keep pytest's handlers off the log by which torch follows its compiler: writing it costs more than to compile."""
    # pytest adds handlers to loggers that do not propagate, and torch writes this one wherever it has a handler.
    logging.getLogger("torch.__trace").propagate = True


def pytest_runtest_logstart() -> None:
    """The same where a test before this one was the first to import torch."""
    pytest_collection_finish()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Undo what a file of tests leaves for its process: threads of a replica, and code of one's own that may run."""
    if nextitem is not None and nextitem.path == item.path:
        return
    own_code._allowed = own_code._Allowed()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
