"""Work that is cut into numbered parts, dealt to Ray's workers: one part a worker at a time, in any order.

A part whose worker is lost is computed by another one. A user's error ends the work as itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from depthray.errors import DepthrayError, ResourceError, error_of


class PartOutcome(NamedTuple):
    """What a worker made of a part, or the user's error that ended it, which Ray would wrap in an error of its own."""

    result: Any
    error: str = ""
    exit_code: int = 0


def outcome_of(compute: Callable[[], Any]) -> PartOutcome:
    """The outcome of a part, on its worker."""
    try:
        return PartOutcome(compute())
    except DepthrayError as error:
        return PartOutcome(None, str(error), error.exit_code)


def deal_parts(
    task: Callable[[Any, int], PartOutcome],
    shared: Any,
    parts: Sequence[int],
    *,
    workers: int,
    done: Callable[[int, Any], None],
    gpus: float = 0.0,
) -> None:
    """Run `task(shared, part)` for each of the parts on `workers` workers, and call `done(part, result)` as each ends.

    `gpus` is the share of a GPU that a worker takes. Raises the user's error of a part, and ResourceError where the
    cluster has too few CPUs or a part's workers are lost again and again.
    """
    import ray

    cpus = int(ray.cluster_resources().get("CPU", 0))
    if workers > cpus:
        raise ResourceError(f"--workers {workers} needs {workers} CPUs, the cluster has {cpus}")
    # max_calls: Ray ends a worker after each task with a GPU otherwise, and what it has opened with it.
    remote = ray.remote(max_calls=0, num_gpus=gpus)(task) if gpus else ray.remote(task)
    stored = ray.put(shared)  # once, not sent with every task
    waiting = deque(parts)
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            # Not all at once: a cluster with more CPUs than --workers would run more.
            while waiting and len(running) < workers:
                part = waiting.popleft()
                running[remote.remote(stored, part)] = part
            (ready, *_), _ = ray.wait(list(running))
            part = running.pop(ready)
            done(part, _result_of(ready))
    finally:  # on an error or Ctrl-C; a cluster outlives this process, and would finish the tasks
        for unfinished in running:
            ray.cancel(unfinished)


def _result_of(reference: Any) -> Any:
    import ray

    try:
        outcome: PartOutcome = ray.get(reference)
    except ray.exceptions.WorkerCrashedError:  # after Ray's own retries of the task
        raise ResourceError(
            "a worker was lost repeatedly, perhaps for lack of memory; lower --workers, the same command resumes"
        ) from None
    if outcome.error:
        raise error_of(outcome.error, outcome.exit_code)
    return outcome.result
