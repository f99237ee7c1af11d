"""Settings every test needs before torch or Ray is imported."""

from __future__ import annotations

import logging
import os

from depthray import waiting

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small arrays: threads only get in each other's way
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["DEPTHRAY_SERVE_MODEL__RUNTIME"] = "eager"  # exports take seconds; tests/serve/registry has those of them
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"  # the session's own loopback cluster; no token file is left in the home folder
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
os.setpriority = lambda *_: None  # `serve promote` lowers its own, which would slow all tests after it in this process
waiting.EVERY = 3600.0  # tests count lines, and a loaded machine may be slower than people are patient


def pytest_collection_finish() -> None:
    """Keep pytest's handlers off the log by which torch follows its compiler: writing it costs more than to compile."""
    # pytest adds handlers to loggers that do not propagate, and torch writes this one wherever it has a handler.
    logging.getLogger("torch.__trace").propagate = True


def pytest_runtest_logstart() -> None:
    """The same where a test before this one was the first to import torch."""
    pytest_collection_finish()
