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

from cluster.diagnostics import probe
from cluster.diagnostics.health import Cluster, Node, judge
from depthray.cli import doctor as command
from depthray.cli.doctor import Finding

PATIENCE = 90.0  # seconds for an answer of all nodes; the first needs a process there, with its imports


def main(argv: list[str]) -> int:
    """`depthray doctor`, of this machine or of the cluster at --address."""
    return command.main(argv, examine)


def examine(address: str, storage: str | None = None) -> Iterator[Finding]:
    """Everything that matters for training on the cluster at an address, with runs in a storage."""
    where = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    reached = _head(where)
    if reached:
        yield reached
        if reached.state == "bad":
            return
    try:
        with _connected(where) as ray:
            cluster = _look(ray, storage)
    except (ConnectionError, RuntimeError, ValueError) as error:
        yield _refused(where, error)
        return
    yield from judge(cluster, storage)


def _head(where: str) -> Finding | None:
    """Whether the head's port is reached: Ray itself would try for minutes."""
    host, _, port = where.rpartition(":")
    if not port.isdigit():
        return None  # "auto": Ray knows where
    begun = time.perf_counter()
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        mend = (
            "is the head running, is it the port of `ray start --head` (6379 unless told), do firewalls let it through?"
        )
        return Finding("head", "bad", f"{where}: {error}", mend)
    return Finding("head", "ok", f"{where} reached in {1000 * (time.perf_counter() - begun):.0f} ms")


def _refused(where: str, error: Exception) -> Finding:
    text = " ".join(str(error).split())[:300]
    if "ersion mismatch" in text:
        return Finding("versions", "bad", text, "use the cluster's versions of Ray and Python here")
    # Ray tells a wrong token from a silent head in its log only; that the port answers, `_head` has seen.
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    token = next(
        (name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)), "~/.ray/auth_token"
    )
    mend = (
        "export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE with the cluster's token; then look at the head's logs"
    )
    return Finding("auth", "bad", f"{where}: {text} (RAY_AUTH_MODE here: {mode}, token: {token})", mend)


@contextmanager
def _connected(where: str) -> Iterator[Any]:
    import ray

    mine = not ray.is_initialized()
    if mine:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _look(ray: Any, storage: str | None) -> Cluster:
    """Ask every node, all at once."""
    ray.cloudpickle.register_pickle_by_value(probe)
    alive = [each for each in ray.nodes() if each["Alive"]]
    nodes = [_node(each) for each in alive]
    dashboard = ray._private.worker._global_node.webui_url or ""
    cluster = Cluster(nodes, dead=len(ray.nodes()) - len(alive), dashboard=dashboard)
    # No CPU is asked for: nodes that are busy, and a head without any, answer as well.
    actors = [_on(ray, each, ray.remote(probe.Probe), num_cpus=0).remote() for each in alive]
    folder = ray._private.worker._global_node.get_session_dir_path()
    asked = _answers(ray, [actor.facts.remote(folder) for actor in actors])
    there = [index for index, answer in enumerate(asked) if isinstance(answer, dict)]
    cluster.mute = [nodes[index].name for index in range(len(nodes)) if index not in there]
    for index in there:
        facts = asked[index]
        nodes[index].versions, nodes[index].shared, nodes[index].disk = (
            facts["versions"],
            facts["shared"],
            facts["disk"],
        )
    cluster.nodes = [nodes[index] for index in there]
    actors, alive = [actors[index] for index in there], [alive[index] for index in there]
    _measure(ray, cluster, actors, alive)
    if storage:
        _try_storage(ray, cluster.nodes, actors, storage)
    _train(ray, cluster.nodes, alive)
    return cluster


def _node(each: dict[str, Any]) -> Node:
    have = each["Resources"]
    name = f"{each['NodeManagerAddress']} {each['NodeID'][:6]}"
    return Node(name, cpus=have.get("CPU", 0), gpus=have.get("GPU", 0))


def _on(ray: Any, each: dict[str, Any], what: Any, **resources: float) -> Any:
    """A task or actor bound to a node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    bound = NodeAffinitySchedulingStrategy(each["NodeID"], soft=False)
    return what.options(scheduling_strategy=bound, **resources)


def _answers(ray: Any, asked: list[Any]) -> list[Any]:
    """The answers in order; the error in place of one that failed or did not come in time."""
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE) if asked else ([], [])
    return [_answer(ray, each) if each in done else TimeoutError(f"no answer in {PATIENCE:g} s") for each in asked]


def _answer(ray: Any, each: Any) -> Any:
    try:
        return ray.get(each)
    except ray.exceptions.RayError as error:
        return error


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else " ".join(f"{type(answer).__name__}: {answer}".split())[:300]


def _measure(ray: Any, cluster: Cluster, actors: list[Any], alive: list[dict[str, Any]]) -> None:
    """Clocks, the way to the next node, and the jobs API as the head sees it."""
    for node, actor in zip(cluster.nodes, actors, strict=True):
        node.clock = _offset(partial(_clock, ray, actor))
    hosts = [each["NodeManagerAddress"] for each in alive]
    ports = _answers(ray, [actor.listen.remote(host) for actor, host in zip(actors, hosts, strict=True)])
    ring = [(index + 1) % len(actors) for index in range(len(actors))]
    reached = _answers(ray, [actors[i].reach.remote(hosts[j], ports[j]) for i, j in enumerate(ring)])
    for node, answer in zip(cluster.nodes, reached, strict=True):
        node.unreached = _text(answer)
    _answers(ray, [actor.hush.remote() for actor in actors])
    head = next((i for i, each in enumerate(alive) if "node:__internal_head__" in each["Resources"]), None)
    if head is not None and cluster.dashboard:
        (cluster.status,) = _answers(ray, [actors[head].ask.remote(f"http://{cluster.dashboard}/api/jobs/")])


def _clock(ray: Any, actor: Any) -> float:
    return float(ray.get(actor.clock.remote(), timeout=PATIENCE))


def _offset(ask: Callable[[], float]) -> tuple[float, float]:
    """How far another clock is ahead of ours, by the quickest of a few questions, and half the time that took."""
    tries = []
    for _ in range(5):
        begun = time.time()
        there = ask()
        ended = time.time()
        tries.append(((ended - begun) / 2, there - (begun + ended) / 2))
    sure, ahead = min(tries)
    return ahead, sure


def _try_storage(ray: Any, nodes: list[Node], actors: list[Any], where: str) -> None:
    names = [node.name.replace(" ", "-").replace(":", "-") for node in nodes]
    written = _answers(ray, [actor.write.remote(where, name) for actor, name in zip(actors, names, strict=True)])
    seen = _answers(ray, [actor.read.remote(where, names[0]) for actor in actors])
    for node, wrote, read in zip(nodes, written, seen, strict=True):
        node.storage, node.unseen = _text(wrote), _text(read)
    _answers(ray, [actor.remove.remote(where, name) for actor, name in zip(actors, names, strict=True)])


def _train(ray: Any, nodes: list[Node], alive: list[dict[str, Any]]) -> None:
    able = [index for index, node in enumerate(nodes) if node.cpus >= 1]
    task = ray.remote(probe.step)
    asked = [
        _on(ray, alive[i], task, num_cpus=1, num_gpus=min(1, nodes[i].gpus), max_retries=0).remote(nodes[i].gpus >= 1)
        for i in able
    ]
    for index, answer in zip(able, _answers(ray, asked), strict=True):
        nodes[index].step = _text(answer)
