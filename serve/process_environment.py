"""The environment variables of Ray's processes. Imports no Ray, which reads them when it is imported."""

from __future__ import annotations

from depthray.runtimes import allocator

# The ingress runs on the same cores. A thread of a forward pass that waits for another one must yield its core instead
# of spinning, which costs several times the pass as soon as there are more busy threads than cores.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
REPLICA = {**allocator.ENVIRONMENT, **THREADS}
# Of all processes of a cluster that `depthray serve` starts, and of itself.
SERVICE = {
    "RAY_worker_niceness": "0",  # not 15: whatever else runs on the machine would delay answers
    "RAY_SERVE_LOG_TO_STDERR": "0",  # a line for each request costs more than answering it
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a dead proxy is replaced after 3 of these, not after 30 s
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",  # on a busy machine one takes more than 5 s to start
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",  # else replicas follow a load 10 s late
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.proxy.uvicorn:limit_headers",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",  # of the controller, which takes 3 % of a core otherwise
    # Requests go from process to process over it, not as calls of actors, whose arguments and results above 100 kB pass
    # through the object store: that was a third of what an answer takes beside the network. Both ask for the cluster's
    # token.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),  # not 4 MiB: images and maps may be more
}
