"""A connection to a Ray cluster, or to a local one that is started for the command and ends with it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from depthray.config import shadowed_packages
from depthray.config.ray_environment import prepare_environment, start_local
from depthray.errors import ResourceError

POLL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
POLLS_A_SECOND = 128  # of workers, all together, by the one process that controls them
# Driver and workers read these when Ray is imported. Ray's print patch prints lines twice.
RAY_SETTINGS = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
}
# A few workers on this machine can be polled often, and their node is not preempted.
LOCAL_SETTINGS = {POLL: "0.2", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


@contextmanager
def ray_cluster(address: str | None, *, workers: int, dashboard: bool = False) -> Iterator[None]:
    """A connection to the cluster at an address, or a local one that lives as long as the context."""
    settings = {POLL: f"{poll_seconds(workers):g}", **RAY_SETTINGS, **({} if address else LOCAL_SETTINGS)}
    prepare_environment(settings, local=not address)
    import ray

    if ray.is_initialized():  # by the calling program, which will also shut it down
        yield
        return
    # Lines of workers are not needed here: progress comes from the run's file.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    quiet |= shadowed_packages.ray_arguments()
    with _kept_signal_handlers():
        if address:
            _connect(address, quiet)
        else:
            cpus = max(os.cpu_count() or 1, workers)  # more workers than cores are slow, but not an error
            start_local(ray, num_cpus=cpus, include_dashboard=dashboard, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def poll_seconds(workers: int) -> float:
    """Seconds between two polls of every worker by Ray Train's controller, whose default is 2.

    Start-up steps and reports wait for them, so few workers are polled often; of many, polls would be all it does.
    """
    return max(0.5, workers / POLLS_A_SECOND)


def _connect(address: str, settings: dict[str, Any]) -> None:
    """Join the cluster at an address. Raises ResourceError where none answers."""
    import ray

    try:
        ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ResourceError(
            f"--address {address}: cannot connect: {reason}; give HOST:6379 of a head node, or auto on a node of the "
            "cluster, or leave --address out, which starts Ray on this machine alone"
        ) from None


@contextmanager
def _kept_signal_handlers() -> Iterator[None]:
    """Set the caller's signal handlers again afterwards: `ray.init` replaces them by one that aborts the process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if callable(handler) and threading.current_thread() is threading.main_thread():  # no other may set one
            signal.signal(number, handler)
