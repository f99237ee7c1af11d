"""`depthray doctor`: with --address every node of a cluster is examined, with advice on how to fix what is wrong."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from cluster import ray_private
from cluster.diagnostics import probe
from cluster.diagnostics.health import ClusterFacts, NodeFacts, judge
from depthray.cli import doctor as command
from depthray.cli.doctor import Finding

ANSWER_SECONDS = 90.0  # for answers of all nodes; the first answer needs a new process with its imports on each


def main(argv: list[str]) -> int:
    """`depthray doctor`, of this machine or of the cluster at --address."""
    return command.main(argv, examine_cluster)


def examine_cluster(address: str, storage: str | None = None) -> Iterator[Finding]:
    """Findings on all that matters for training on the cluster at an address, with runs in a storage."""
    url = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    head = _check_head(url)
    if head:
        yield head
        if head.state == "bad":
            return
    try:
        with _connection(url) as ray:
            cluster = _collect_facts(ray, storage)
    except (ConnectionError, RuntimeError, ValueError) as error:
        yield _connection_finding(url, error)
        return
    yield from judge(cluster, storage)


def _check_head(address: str) -> Finding | None:
    """Whether the head's port is reached: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return None  # "auto": Ray finds the address
    began = time.perf_counter()
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        advice = (
            "is the head running, is it the port of `ray start --head` (default: 6379), do firewalls let it through?"
        )
        return Finding("head", "bad", f"{address}: {error}", advice)
    return Finding("head", "ok", f"{address} reached in {1000 * (time.perf_counter() - began):.0f} ms")


def _connection_finding(address: str, error: Exception) -> Finding:
    text = " ".join(str(error).split())[:300]
    if "ersion mismatch" in text:
        return Finding("versions", "bad", text, "use the cluster's versions of Ray and Python here")
    # Ray distinguishes a wrong token from a silent head in its log only; `_check_head` has found that the port answers.
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    token = next(
        (name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)), "~/.ray/auth_token"
    )
    advice = (
        "export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE with the cluster's token; then look at the head's logs"
    )
    return Finding("auth", "bad", f"{address}: {text} (RAY_AUTH_MODE here: {mode}, token: {token})", advice)


@contextmanager
def _connection(address: str) -> Iterator[Any]:
    import ray

    is_new = not ray.is_initialized()  # else the calling program has connected, and will also shut down
    if is_new:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        if is_new:
            ray.shutdown()


def _collect_facts(ray: Any, storage: str | None) -> ClusterFacts:
    """Examine every node, all at once."""
    ray.cloudpickle.register_pickle_by_value(probe)  # a node may lack depthray, which is a finding, not an error
    alive = [each for each in ray.nodes() if each["Alive"]]
    nodes = [_node_facts(each) for each in alive]
    dead = len(ray.nodes()) - len(alive)
    cluster = ClusterFacts(nodes, dead=dead, dashboard=ray_private.dashboard_address())
    # Actors without CPUs, so that busy nodes and a head without any are examined as well.
    actors = [_bind_to_node(ray, each, ray.remote(probe.NodeProbe), num_cpus=0).remote() for each in alive]
    folder = ray_private.session_folder()
    answers = _collect(ray, [actor.facts.remote(folder) for actor in actors])
    responsive = [index for index, answer in enumerate(answers) if isinstance(answer, dict)]
    cluster.unresponsive = [nodes[index].name for index in range(len(nodes)) if index not in responsive]
    for index in responsive:
        facts, node = answers[index], nodes[index]
        node.versions, node.shared, node.disk = facts["versions"], facts["shared"], facts["disk"]
    cluster.nodes = [nodes[index] for index in responsive]
    actors, alive = [actors[index] for index in responsive], [alive[index] for index in responsive]
    _measure_nodes(ray, cluster, actors, alive)
    if storage:
        _try_storage(ray, cluster.nodes, actors, storage)
    _train_steps(ray, cluster.nodes, alive)
    return cluster


def _node_facts(each: dict[str, Any]) -> NodeFacts:
    resources = each["Resources"]
    # Both, as several nodes of one host have the same address.
    name = f"{each['NodeManagerAddress']} {each['NodeID'][:6]}"
    return NodeFacts(name, cpus=resources.get("CPU", 0), gpus=resources.get("GPU", 0))


def _bind_to_node(ray: Any, each: dict[str, Any], remote: Any, **resources: float) -> Any:
    """A task or actor that runs on one node only."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Not soft: Ray would run it on another node where this one is busy, and the finding would be that node's.
    strategy = NodeAffinitySchedulingStrategy(each["NodeID"], soft=False)
    return remote.options(scheduling_strategy=strategy, **resources)


def _collect(ray: Any, references: list[Any]) -> list[Any]:
    """The answers in order; in place of an answer that failed or was late, the error."""
    done, _ = ray.wait(references, num_returns=len(references), timeout=ANSWER_SECONDS) if references else ([], [])
    late = TimeoutError(f"no answer in {ANSWER_SECONDS:g} s")
    return [_get_or_error(ray, each) if each in done else late for each in references]


def _get_or_error(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return error


def _error_text(answer: Any) -> str:
    return answer if isinstance(answer, str) else " ".join(f"{type(answer).__name__}: {answer}".split())[:300]


def _measure_nodes(ray: Any, cluster: ClusterFacts, actors: list[Any], alive: list[dict[str, Any]]) -> None:
    """Measure the clocks, the connection to the next node, and the jobs API as the head reaches it."""
    for node, actor in zip(cluster.nodes, actors, strict=True):
        node.clock = _clock_offset(partial(_read_clock, ray, actor))
    hosts = [each["NodeManagerAddress"] for each in alive]
    ports = _collect(ray, [actor.listen.remote(host) for actor, host in zip(actors, hosts, strict=True)])
    # In a ring: every node is tried once in each direction, where all pairs would be too many.
    ring = [(index + 1) % len(actors) for index in range(len(actors))]
    results = _collect(ray, [actors[i].reach.remote(hosts[j], ports[j]) for i, j in enumerate(ring)])
    for node, result in zip(cluster.nodes, results, strict=True):
        node.unreached = _error_text(result)
    _collect(ray, [actor.stop_listening.remote() for actor in actors])
    head = next((i for i, each in enumerate(alive) if "node:__internal_head__" in each["Resources"]), None)
    if head is not None and cluster.dashboard:
        # From the head, as the dashboard usually listens on its loopback only.
        url = f"http://{cluster.dashboard}/api/jobs/"
        (cluster.status,) = _collect(ray, [actors[head].http_status.remote(url)])


def _read_clock(ray: Any, actor: Any) -> float:
    return float(ray.get(actor.clock.remote(), timeout=ANSWER_SECONDS))


def _clock_offset(read: Callable[[], float]) -> tuple[float, float]:
    """How far another clock is ahead of ours by the quickest of a few readings, and half the time that one took."""
    readings = []
    for _ in range(5):
        began = time.time()
        theirs = read()
        ended = time.time()
        readings.append(((ended - began) / 2, theirs - (began + ended) / 2))
    uncertainty, ahead = min(readings)
    return ahead, uncertainty


def _try_storage(ray: Any, nodes: list[NodeFacts], actors: list[Any], where: str) -> None:
    names = [node.name.replace(" ", "-").replace(":", "-") for node in nodes]
    written = _collect(ray, [actor.write.remote(where, name) for actor, name in zip(actors, names, strict=True)])
    # Each node reads what the first one wrote, which shows a folder that is not shared.
    read = _collect(ray, [actor.read.remote(where, names[0]) for actor in actors])
    for node, write_result, read_result in zip(nodes, written, read, strict=True):
        node.storage, node.unreadable = _error_text(write_result), _error_text(read_result)
    _collect(ray, [actor.remove.remote(where, name) for actor, name in zip(actors, names, strict=True)])


def _train_steps(ray: Any, nodes: list[NodeFacts], alive: list[dict[str, Any]]) -> None:
    able = [index for index, node in enumerate(nodes) if node.cpus >= 1]
    task = ray.remote(probe.train_one_step)
    references = []
    for i in able:
        gpus = min(1, nodes[i].gpus)
        # Without retries: a worker that dies in the step is the finding.
        bound = _bind_to_node(ray, alive[i], task, num_cpus=1, num_gpus=gpus, max_retries=0)
        references.append(bound.remote(nodes[i].gpus >= 1))
    for index, answer in zip(able, _collect(ray, references), strict=True):
        nodes[index].step = _error_text(answer)
