"""The metrics of a run on Ray workers, epoch by epoch, in the process that called `fit_on_workers`. Imports Ray.

When all workers have reported an epoch, Ray Train calls its callbacks in the controller, an actor of its own; a queue,
which is an actor too, carries the metrics from there. Metrics that a worker reports right before it is killed get lost
on the way, though its checkpoint is complete: whoever needs every epoch looks for gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ray.exceptions import RayError
from ray.train import UserCallback
from ray.util.queue import Queue


class EpochReports:
    """Iterates over the metrics that rank 0 reports, as they come, until it is closed."""

    def __init__(self) -> None:
        self._queue = Queue(actor_options={"num_cpus": 0})  # or it would take the CPU of a worker
        self.callback = _PutReports(self._queue)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (metrics := self._queue.get()) is not None:
            yield metrics

    def close(self) -> None:
        """End the iteration after the reports that have come."""
        with suppress(RayError):
            self._queue.put(None)


class _PutReports(UserCallback):
    """Runs in the controller."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        with suppress(RayError):  # the process that waited is gone with its queue; it must not end training
            self._queue.put(metrics[0])
