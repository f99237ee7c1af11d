"""What workers need of a cluster, and waiting for a cluster that grows on demand to have it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from depthray.errors import ResourceError

ANSWER = 25.0  # seconds in which an autoscaler, which looks every 5 s, begins to start nodes
LOOK = 2.0


@dataclass(frozen=True)
class Workers:
    """What training runs on: equal workers, replaced when they are lost."""

    count: int = 1
    cpus: int | None = None  # a worker; None = an equal share of the cluster
    gpus: float = 0.0  # a worker
    max_failures: int = 8
    sizes: tuple[int, ...] = ()  # the numbers of workers that will do; empty: `count` only

    @property
    def least(self) -> int:
        """Without so many there is no training."""
        return self.sizes[0] if self.sizes else self.count


def per_worker(have: dict[str, float], workers: Workers) -> dict[str, float]:
    """CPUs and GPUs each worker gets. Raises ResourceError where the cluster has too few for the least of workers."""
    cpus, gpus, count = int(have.get("CPU", 0)), int(have.get("GPU", 0)), workers.least
    each = workers.cpus or max(1, cpus // workers.count)
    if each * count > cpus:
        raise ResourceError(f"{count} workers x {each} CPUs were asked for, the cluster has {cpus} CPUs")
    if workers.gpus * count > gpus:
        raise ResourceError(f"{count} workers x {workers.gpus:g} GPUs were asked for, the cluster has {gpus} GPUs")
    return {"CPU": each, **({"GPU": workers.gpus} if workers.gpus else {})}


def await_room(workers: Workers, say: Callable[[str], None], *, minutes: float) -> None:
    """Ask a cluster that grows on demand for nodes, and wait until it has room for the least of workers.

    Raises ResourceError where it starts none, or has not after so many minutes.
    """
    import ray

    try:
        per_worker(ray.cluster_resources(), workers)
        return
    except ResourceError as error:
        lack = error
    if minutes <= 0:
        raise lack
    if not workers.cpus:
        raise ResourceError(
            f"{lack}; it may grow, but then --cpus-per-worker must be given, as there are no nodes yet to share"
        )
    _wait(workers, say, minutes=minutes, lack=lack)


def _wait(workers: Workers, say: Callable[[str], None], *, minutes: float, lack: ResourceError) -> None:
    """Hold a placement group, which every kind of autoscaler serves, until it can be had."""
    from ray.util import placement_group, remove_placement_group

    bundle = {"CPU": float(workers.cpus or 1), **({"GPU": workers.gpus} if workers.gpus else {})}
    began, told = time.monotonic(), False
    group = placement_group([bundle] * workers.least)
    try:
        while not group.wait(LOOK):
            waited = time.monotonic() - began
            if not told and starting():
                told = True
                say(f"waiting      for nodes with {_spelled(bundle)} for each of {workers.least} workers")
            if not told and waited > ANSWER:
                raise ResourceError(f"{lack}, and starts no nodes for them")
            if waited > minutes * 60:
                raise ResourceError(f"{lack}; no more came in {minutes:g} minutes (--wait)")
    finally:
        remove_placement_group(group)


def _spelled(bundle: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {key}s" for key, amount in bundle.items())


def starting() -> bool:
    """Whether the cluster's autoscaler is starting nodes; False where there is none."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

    reply: Any = GetClusterStatusReply()
    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    state = reply.autoscaling_state
    return bool(state.pending_instance_requests or state.pending_instances) or _starting_v1()


def _starting_v1() -> bool:
    """The same of Ray's older autoscaler."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.experimental.internal_kv import _internal_kv_get

    report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report") or {}
    return bool(report.get("pending_launches") or report.get("pending_nodes"))
