"""The one file that uses private names of Ray, so that an upgrade of Ray breaks it alone; checked with Ray 2.60.

Each function and class says why Ray's public API does not do the same. Ray is imported when a name is used: the doctor
and `python -m cluster.one_host` need little of it, and Ray Train takes seconds to import. Where Ray must be subclassed,
there is a mixin with public hooks, which stands before Ray's own class among the bases.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.callback import WorkerCallback
    from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
    from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ResizeDecision

__all__ = [
    "DefaultFailurePolicy",
    "ElasticScalingPolicy",
    "FailureDecision",
    "NoopDecision",
    "ResizeDecision",
    "WorkerCallback",
]

# Ray Train scales and retries otherwise only by policies and callbacks of these types, which it does not export.
CLASSES = {
    "DefaultFailurePolicy": "ray.train.v2._internal.execution.failure_handling",
    "ElasticScalingPolicy": "ray.train.v2._internal.execution.scaling_policy",
    "FailureDecision": "ray.train.v2._internal.execution.failure_handling",
    "NoopDecision": "ray.train.v2._internal.execution.scaling_policy",
    "ResizeDecision": "ray.train.v2._internal.execution.scaling_policy",
    "WorkerCallback": "ray.train.v2._internal.execution.callback",
}
# Loggers that report each step of packaging and submitting a job; a logger's name is all there is to silence it by.
CHATTY_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
# `ray start` whose arguments follow. Ray replaces 127.0.0.1 by the address of a network interface and listens on all
# interfaces, except on systems that it believes to be without clusters, where `ray start --address` refuses to join.
# There is no option for either: one_host claims such a system by RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, and here
# `ray start` does not see it.
START_ON_LOOPBACK = """
from ray._private import ray_constants, services
ray_constants.ENABLE_RAY_CLUSTER = True
services.resolve_ip_for_localhost = lambda host: host
from ray.scripts.scripts import main
main()
"""
RESERVED_SECONDS = 5.0  # within which the cluster answers what is reserved for a run


def __getattr__(name: str) -> Any:
    if name not in CLASSES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(CLASSES[name]), name)


# The cluster's key-value store. Ray has no public one, and an actor in its place would be lost with its node, whereas
# this one is on the head, where a node that is cut off cannot reach it.


def put_value(namespace: bytes, key: str, value: str, *, overwrite: bool) -> None:
    """Store a text on the cluster's head. Without `overwrite` the value that is there already stays."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(key.encode(), value.encode(), overwrite=overwrite, namespace=namespace)


def get_value(namespace: bytes, key: str) -> str:
    """The text stored last under a key, "" where there is none."""
    from ray.experimental.internal_kv import _internal_kv_get

    return (_internal_kv_get(key.encode(), namespace=namespace) or b"").decode()


# Nodes


def has_pending_nodes() -> bool:
    """Whether the cluster's autoscaler is starting nodes; False where there is none.

    `ray.autoscaler.sdk` requests nodes, but does not report whether any are on their way.
    """
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

    reply: Any = GetClusterStatusReply()
    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    state = reply.autoscaling_state
    return bool(state.pending_instance_requests or state.pending_instances) or _has_pending_nodes_v1()


def _has_pending_nodes_v1() -> bool:
    """The same of Ray's older autoscaler, which leaves a report in the key-value store."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.experimental.internal_kv import _internal_kv_get

    report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}").get("autoscaler_report") or {}
    return bool(report.get("pending_launches") or report.get("pending_nodes"))


def draining_nodes() -> set[str]:
    """Ids of the nodes that are about to be removed. `ray.nodes()` lists them as alive until they are gone."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


def is_node_preempted() -> bool:
    """Whether a node of this worker's group is about to be removed; False outside a worker of Ray Train.

    The public `ray.train.get_preemption_info` synchronises all workers, which costs too much after each step. This is
    where it finds what the controller has sent to this process.
    """
    try:
        from ray.train.v2._internal.execution.context import get_train_context

        return get_train_context().preemption_context.preemption_info is not None
    except (ImportError, AttributeError, RuntimeError):
        return False


def dashboard_address() -> str:
    """host:port of the dashboard of the cluster this process is connected to, "" where it has none.

    Publicly only `ray.init` returns it, and the caller of the doctor may have connected before.
    """
    import ray

    return str(ray._private.worker._global_node.webui_url or "")  # type: ignore[attr-defined]


def session_folder() -> str:
    """The folder below which Ray writes logs and spilled objects. No public name has it."""
    import ray

    return str(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]


# Ray Train


class ScalingPolicyHooks:
    """Before `ElasticScalingPolicy`: which nodes count, and which numbers of workers are allowed.

    Ray has no option for either. It also decides by reservations that are up to 20 s old; here they are recomputed.
    """

    def remaining_nodes(self, nodes: Mapping[str, Any]) -> dict[str, Any]:
        """Hook: of the nodes' resources by node id, those on which workers may be placed."""
        return dict(nodes)

    def allowed_count(self, most: int) -> int:
        """Hook: the number of workers to use where there is space for so many."""
        return most

    def _count_possible_workers(self, reserved_resources: Mapping[str, Any]) -> int:
        nodes = self.remaining_nodes(reserved_resources)
        return self.allowed_count(super()._count_possible_workers(nodes))  # type: ignore[misc]

    def _get_reserved_resources(self: Any) -> Any:
        import ray

        now = time.monotonic()
        if now - self._latest_reserved_resources_query_time < self.GET_RESERVED_RESOURCES_INTERVAL_S:
            return self._latest_reserved_resources
        try:
            reply = self._autoscaling_coordinator.get_reserved_resources.remote(self._requester_id, recompute=True)
            self._latest_reserved_resources = ray.get(reply, timeout=RESERVED_SECONDS)
        except Exception:  # as in Ray's own policy: no decision until the next poll
            self._latest_reserved_resources = None
        self._latest_reserved_resources_query_time = time.monotonic()
        return self._latest_reserved_resources


class TrainerHooks:
    """Before `TorchTrainer`: which policies it uses; and Ctrl-C is left to the caller.

    Ray builds the policies from its configurations, with no way to pass others. Its handler of Ctrl-C aborts the run
    without a checkpoint, and cannot be switched off. Nor can its process for Ray Data's datasets, which starts with
    every group of workers: a trainer without datasets does without.
    """

    def scaling_policy(self, default: Any) -> Any:
        """Hook: the policy to use in place of Ray's."""
        return default

    def failure_policy(self, default: Any) -> Any:
        """Hook: the same of what happens after a failure."""
        return default

    def _register_sigint_handler(self, controller: Any) -> None:
        pass

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        from ray.train.v2._internal.callbacks import DatasetsCallback

        arguments["scaling_policy"] = self.scaling_policy(arguments["scaling_policy"])
        arguments["failure_policy"] = self.failure_policy(arguments["failure_policy"])
        arguments["callbacks"] = [each for each in arguments["callbacks"] if not isinstance(each, DatasetsCallback)]
        return super()._initialize_and_run_controller(**arguments)  # type: ignore[misc]


# Ray Tune


def wait_for_stopped_trial(seconds: float) -> None:
    """Wait until the function of this process's trial, which Tune has stopped, has returned; at most so long.

    Tune itself waits 2 s and has no setting for it.
    """
    from ray.train._internal.session import get_session

    session = get_session()
    if session is not None and session.training_started:
        session.finish(timeout=seconds)


class MedianStoppingHooks:
    """Before `MedianStoppingRule`: what happens to a trial while there are too few others to judge it by.

    Ray pauses such a trial, and no argument changes that.
    """

    def judge_unknown(self) -> str:
        """Hook: one of the decisions of `TrialScheduler`."""
        raise NotImplementedError

    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
        return self.judge_unknown()


class PopulationHooks:
    """Before `PopulationBasedTraining`: the configuration of a trial that continues from another.

    `custom_explore_fn` gets the configuration alone, and not which trial it comes from.
    """

    def extend_config(self, config: dict[str, Any], source: Any) -> dict[str, Any]:
        """Hook: the configuration, where `source` is the trial whose checkpoint is used."""
        return config

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)  # type: ignore[misc]
        return self.extend_config(config, trial_to_clone), operations
