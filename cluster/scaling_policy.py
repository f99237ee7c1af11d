"""How Ray Train chooses the number of workers of an elastic run. Imports Ray, so it is imported late."""

from __future__ import annotations

import secrets
import time
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import WorkerCallback
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ResizeDecision
from ray.train.v2.api.config import ScalingConfig

from cluster import elastic

ANSWER = 5.0  # seconds within which the cluster tells what it has
PATIENCE = 60.0  # seconds to wait for the save point before a resize


class Divisors(ElasticScalingPolicy):
    """As many workers as there is room for, of the numbers that the global batch divides by.

    Unlike Ray's own policy it asks for the nodes as they are now rather than up to 20 s ago, leaves out nodes that are
    about to go, and has a healthy group save before it is replaced by one of another size.
    """

    def __init__(self, scaling_config: ScalingConfig, *, sizes: list[int], attempt: str) -> None:
        super().__init__(scaling_config)
        self.sizes, self.attempt = sizes, attempt
        self._wanted: ResizeDecision | None = None
        self._wish, self._since = "", 0.0

    def _count_possible_workers(self, reserved_resources: dict[str, Any]) -> int:
        going = _draining()
        staying = {node: resources for node, resources in reserved_resources.items() if node not in going}
        room = super()._count_possible_workers(staying)
        return max((size for size in self.sizes if size <= room), default=0)

    def make_decision_for_non_running_worker_group(self) -> Any:
        self._wanted = None
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        if self._wanted:
            return self._saved_or_noop()
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        if isinstance(decision, ResizeDecision):
            self._wanted, self._wish, self._since = decision, secrets.token_hex(4), time.monotonic()
            elastic.put(self.attempt, elastic.SAVE, self._wish)
            return NoopDecision()
        return decision

    def _saved_or_noop(self) -> Any:
        """The resize that waits for a save point, once that is there."""
        saved = elastic.get(self.attempt, elastic.SAVED) == self._wish
        if not saved and time.monotonic() - self._since < PATIENCE:
            return NoopDecision()
        decision, self._wanted = self._wanted, None
        return decision

    def _get_reserved_resources(self) -> Any:
        now = time.monotonic()
        if now - self._latest_reserved_resources_query_time < self.GET_RESERVED_RESOURCES_INTERVAL_S:
            return self._latest_reserved_resources
        try:
            asked = self._autoscaling_coordinator.get_reserved_resources.remote(self._requester_id, recompute=True)
            self._latest_reserved_resources = ray.get(asked, timeout=ANSWER)
        except Exception:  # as in the base: no decision until the next look
            self._latest_reserved_resources = None
        self._latest_reserved_resources_query_time = time.monotonic()
        return self._latest_reserved_resources


def _draining() -> dict[str, int]:
    """Nodes that are about to be taken away."""
    from ray._private.state import state

    return dict(state.get_draining_nodes())


class OnSigterm(WorkerCallback):
    """Lets a worker that gets SIGTERM save; in its main thread, where alone signals can be taken."""

    def after_init_train_context(self) -> None:
        elastic.live_on_after_sigterm()


class Trainer(TorchTrainer):
    """TorchTrainer that resizes by our policy and leaves Ctrl-C to us: Ray would end the run without a checkpoint."""

    sizes: tuple[int, ...] = ()  # the numbers of workers that will do; empty: one only

    def _register_sigint_handler(self, controller: Any) -> None:
        pass

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if self.sizes:
            scaling: Any = self.scaling_config  # mypy sees the classes of the older API
            parts["scaling_policy"] = Divisors(scaling, sizes=list(self.sizes), attempt=str(self.run_config.name))
        return super()._initialize_and_run_controller(**parts)  # type: ignore[misc]
