"""What Ray Train does when nodes come and go, and when workers fail. Imports Ray, so it is imported late."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import ScalingConfig

from cluster import elastic, ray_private
from cluster.ray_private import (
    DefaultFailurePolicy,
    ElasticScalingPolicy,
    FailureDecision,
    NoopDecision,
    ResizeDecision,
    WorkerCallback,
)
from cluster.rendezvous import reported_error

SAVE_SECONDS = 60.0  # to wait for the save point before a resize


class DivisorPolicy(ray_private.ScalingPolicyHooks, ElasticScalingPolicy):
    """As many workers as the cluster has resources for, of the numbers that the global batch divides by.

    Unlike Ray's own policy it uses the nodes as they are now rather than up to 20 s ago, leaves out nodes that are
    about to be removed, and has a healthy group save before it is replaced by one of another size.
    """

    def __init__(self, scaling_config: ScalingConfig, *, sizes: list[int], attempt: str) -> None:
        super().__init__(scaling_config)
        self.sizes, self.attempt = sizes, attempt
        self._resize: ResizeDecision | None = None  # waits for the save point
        self._request, self._requested_at = "", 0.0

    def remaining_nodes(self, nodes: Mapping[str, Any]) -> dict[str, Any]:
        draining = ray_private.draining_nodes()
        return {node: resources for node, resources in nodes.items() if node not in draining}

    def allowed_count(self, most: int) -> int:
        return max((size for size in self.sizes if size <= most), default=0)

    def make_decision_for_non_running_worker_group(self) -> Any:
        self._resize = None  # the group is gone, so nobody is left to save
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        if self._resize:
            return self._resize_once_saved()
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        if isinstance(decision, ResizeDecision):
            self._resize, self._request, self._requested_at = decision, secrets.token_hex(4), time.monotonic()
            elastic.put_value(self.attempt, elastic.SAVE, self._request)
            return NoopDecision()
        return decision

    def _resize_once_saved(self) -> Any:
        """The resize that waits for a save point, once that is there."""
        saved = elastic.get_value(self.attempt, elastic.SAVED) == self._request
        # A group that cannot save must not keep the run at its size for ever.
        if not saved and time.monotonic() - self._requested_at < SAVE_SECONDS:
            return NoopDecision()
        decision, self._resize = self._resize, None
        return decision


class MistakePolicy(DefaultFailurePolicy):
    """Ray's own, but for errors that would repeat themselves: a user's mistake ends the run at once."""

    def __init__(self, failure_config: Any, *, attempt: str) -> None:
        super().__init__(failure_config)
        self.attempt = attempt

    def make_decision(self, training_failed_error: Any) -> FailureDecision:
        if reported_error(self.attempt):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


class SigtermCallback(WorkerCallback):
    """Lets a worker that gets SIGTERM save. Runs in its main thread, the only one that may set a signal handler."""

    def after_init_train_context(self) -> None:
        elastic.delay_sigterm()


class ElasticTrainer(ray_private.TrainerHooks, TorchTrainer):
    """TorchTrainer that resizes by our policy and leaves Ctrl-C to us: Ray would end the run without a checkpoint."""

    sizes: tuple[int, ...] = ()  # the allowed numbers of workers; empty: the run is not elastic

    def scaling_policy(self, default: Any) -> Any:
        if not self.sizes:
            return default
        scaling: Any = self.scaling_config  # mypy sees the classes of the older API
        return DivisorPolicy(scaling, sizes=list(self.sizes), attempt=str(self.run_config.name))

    def failure_policy(self, default: Any) -> Any:
        return MistakePolicy(default.failure_config, attempt=str(self.run_config.name))
