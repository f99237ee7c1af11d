"""Resources that workers need of a cluster, and waiting for a cluster that grows on demand to have them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster import ray_private
from depthray.config.ray_environment import gpu_slots
from depthray.errors import ResourceError, count_of
from depthray.waiting import TIMEOUT_MINUTES

AUTOSCALER_SECONDS = 25.0  # in which an autoscaler, which looks for requests every 5 s, begins to start nodes
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Workers:
    """What training runs on: equal workers, replaced when they are lost."""

    count: int = 1
    cpus: int | None = None  # a worker; None = an equal share of the cluster
    gpus: float = 0.0  # a worker
    max_failures: int = 8
    sizes: tuple[int, ...] = ()  # the allowed numbers of workers; empty: `count` only
    timeout_minutes: float = TIMEOUT_MINUTES  # after which a worker that waits for the others fails

    @property
    def least(self) -> int:
        """There is no training with fewer workers."""
        return self.sizes[0] if self.sizes else self.count


def resources_per_worker(available: dict[str, float], workers: Workers) -> dict[str, float]:
    """CPUs and GPUs of each worker. Raises ResourceError where the cluster has too few for the least of workers."""
    cpus, gpus, count = int(available.get("CPU", 0)), int(available.get("GPU", 0)), workers.least
    share = workers.cpus or max(1, cpus // workers.count)
    # Raised here, because Ray would try to place such workers for ever.
    if share * count > cpus:
        raise _shortage(count, share, "CPU", cpus)
    if workers.gpus and gpu_slots(gpus, workers.gpus) < count:
        raise _shortage(count, workers.gpus, "GPU", gpus)
    return {"CPU": share, **({"GPU": workers.gpus} if workers.gpus else {})}


def unused_gpus(available: dict[str, float], *, requested: float, flag: str) -> str:
    """A line for a cluster whose GPUs nobody asked for, which would be trained on CPUs; "" where that is no mistake."""
    gpus = int(available.get("GPU", 0))
    if requested or not gpus:
        return ""
    return f"note: the {count_of(gpus, 'GPU')} of the cluster will be idle and training runs on CPUs; give {flag}"


def _shortage(count: int, each: float, kind: str, available: int) -> ResourceError:
    workers, wanted = count_of(count, "worker"), f"{each:g} {kind}{'s' * (each != 1)}"
    return ResourceError(f"{workers} x {wanted} were requested, the cluster has {count_of(available, kind)}")


def wait_for_resources(workers: Workers, log: Callable[[str], None], *, minutes: float) -> None:
    """Request nodes from a cluster that grows on demand, and wait until it has resources for the least of workers.

    Raises ResourceError where it starts none, or has too few after so many minutes.
    """
    import ray

    try:
        resources_per_worker(ray.cluster_resources(), workers)
        return
    except ResourceError as error:
        shortage = error
    if minutes <= 0:
        raise shortage
    if not workers.cpus:
        raise ResourceError(
            f"{shortage}; it may grow, but then --cpus-per-worker must be given, as there are no nodes yet to share"
        )
    _hold_placement_group(workers, log, minutes=minutes, shortage=shortage)


def _hold_placement_group(
    workers: Workers, log: Callable[[str], None], *, minutes: float, shortage: ResourceError
) -> None:
    """Request a placement group, which every kind of autoscaler serves, and wait until it can be placed."""
    from ray.util import placement_group, remove_placement_group

    bundle = {"CPU": float(workers.cpus or 1), **({"GPU": workers.gpus} if workers.gpus else {})}
    began, logged = time.monotonic(), False
    group = placement_group([bundle] * workers.least)
    try:
        while not group.wait(POLL_SECONDS):
            waited = time.monotonic() - began
            # Logged only once nodes are starting: a cluster of fixed size should fail soon, not seem to make progress.
            if not logged and ray_private.has_pending_nodes():
                logged = True
                log(f"waiting      for nodes with {_format_bundle(bundle)} for each of {workers.least} workers")
            if not logged and waited > AUTOSCALER_SECONDS:
                raise ResourceError(f"{shortage}, and starts no nodes for them")
            if waited > minutes * 60:
                raise ResourceError(f"{shortage}; no more were added in {minutes:g} minutes (--wait)")
    finally:
        remove_placement_group(group)  # the nodes stay for the workers, which need the resources themselves


def _format_bundle(bundle: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {key}s" for key, amount in bundle.items())
