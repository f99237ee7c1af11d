"""What the facts of a cluster's nodes mean for training, and how to mend what is wrong."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cluster.diagnostics import probe
from depthray.cli.doctor import Finding

_GIB = 2**30


@dataclass
class Node:
    """A node as the doctor found it."""

    name: str
    cpus: float = 1
    gpus: float = 0
    versions: dict[str, str] = field(default_factory=dict)
    shared: tuple[int, int] | None = None  # bytes free, of
    disk: tuple[int, int] = (0, 1)  # bytes free, of
    clock: tuple[float, float] = (0, 0)  # seconds ahead of here, and how sure that is
    unreached: str = ""  # why the next node could not be reached
    storage: str = ""  # why it could not be written and read
    unseen: str = ""  # why the first node's file could not be read
    step: str | None = None  # why training failed; None: there was nothing to train on


@dataclass
class Cluster:
    """What was found of all."""

    nodes: list[Node]
    dead: int = 0
    dashboard: str = ""  # host:port
    status: int = 401  # of the jobs API without a token; 0 where it does not answer
    mute: list[str] = field(default_factory=list)  # nodes that gave no answer


def judge(cluster: Cluster, storage: str | None) -> Iterator[Finding]:
    """What the facts mean."""
    yield _nodes(cluster)
    yield _resources(cluster.nodes)
    yield from _versions(cluster.nodes)
    yield _room("shared memory", cluster.nodes, lambda node: node.shared, good=2, mend=_MORE_SHARED)
    yield _room("disk", cluster.nodes, lambda node: node.disk, good=10, least=1, mend=_MORE_DISK)
    yield _auth(cluster)
    yield _jobs(cluster)
    yield _network(cluster.nodes)
    yield _clocks(cluster.nodes)
    if storage:
        yield _storage(cluster.nodes, storage)
    yield _steps(cluster.nodes)


_MORE_SHARED = "docker run --shm-size=8g; on Kubernetes an emptyDir of medium Memory at /dev/shm; Ray is slow without"
_MORE_DISK = "make room, or give `ray start` another --temp-dir; Ray stops placing objects on a disk 95 % full"


def _names(nodes: list[Node]) -> str:
    names = [node.name for node in nodes]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _nodes(cluster: Cluster) -> Finding:
    if cluster.mute:
        found = f"{', '.join(cluster.mute[:3])}: no answer"
        return Finding("nodes", "bad", found, "`ray list nodes`; the raylet's log there; restart the node")
    found = f"{len(cluster.nodes)} alive" + (f", {cluster.dead} dead" if cluster.dead else "")
    return Finding("nodes", "ok", found)


def _resources(nodes: list[Node]) -> Finding:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    found = "; ".join(f"{node.name}: {node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes[:8])
    if not cpus:
        mend = "join workers: `ray start --address HEAD:6379`; with autoscaling they come when a job asks for them"
        return Finding("resources", "bad", f"no CPU to train on ({found})", mend)
    return Finding("resources", "ok", f"{cpus:g} CPUs, {gpus:g} GPUs ({found}{'; ...' if len(nodes) > 8 else ''})")


def _versions(nodes: list[Node]) -> Iterator[Finding]:
    for package in ("python", *probe.PACKAGES):
        by_version: dict[str, list[Node]] = {}
        for node in nodes:
            by_version.setdefault(node.versions.get(package, "not installed"), []).append(node)
        yield _version(package, by_version)


def _version(package: str, by_version: dict[str, list[Node]]) -> Finding:
    found = "; ".join(f"{version} on {_names(nodes)}" for version, nodes in by_version.items())
    if "not installed" in by_version:
        mend = "pip install -c constraints.txt on every node, or the image of Containerfile"
        if package == "depthray":
            return Finding(
                package, "warn", found, f"{mend}; until then train with --submit, which takes the code along"
            )
        return Finding(package, "bad", found, mend)
    if len(by_version) > 1:
        return Finding(package, "bad", found, "the same on every node: one image, or pip install -c constraints.txt")
    return Finding(package, "ok", f"{next(iter(by_version), 'unknown')} on all nodes")


def _room(
    name: str,
    nodes: list[Node],
    of: Callable[[Node], tuple[int, int] | None],
    *,
    good: float,
    mend: str,
    least: float = 0,
) -> Finding:
    """The node with the least room; below `good` GiB slows or threatens training, below `least` stops it."""
    known = [(room[0] / _GIB, room[0] / max(room[1], 1), node.name) for node in nodes if (room := of(node))]
    if not known:
        return Finding(name, "ok", "none on any node")
    free, _, where = min(known)
    full = [each for each in known if each[1] < 0.05 and name == "disk"]
    found = f"at least {free:.3g} GiB free ({where})"
    if free >= good and not full:
        return Finding(name, "ok", found)
    if full:
        found += f"; more than 95 % full: {full[0][2]}"
    return Finding(name, "bad" if free < least else "warn", found, mend)


def _loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _auth(cluster: Cluster) -> Finding:
    """An open jobs API runs anything for anybody who reaches it."""
    if cluster.status in (401, 403):
        return Finding("auth", "ok", f"the jobs API at {cluster.dashboard} asks for a token")
    if not cluster.status:
        return Finding(
            "auth", "warn", "unknown, as the jobs API does not answer", "start the head with RAY_AUTH_MODE=token"
        )
    mend = "restart all nodes with RAY_AUTH_MODE=token and one token (ray get-auth-token --generate)"
    if _loopback(cluster.dashboard):
        found = f"no token: whoever is on the head's machine runs code as you by http://{cluster.dashboard}"
        return Finding("auth", "warn", found, mend)
    found = f"no token: whoever reaches http://{cluster.dashboard} runs code on the cluster"
    return Finding("auth", "bad", found, f"{mend}; and --dashboard-host=127.0.0.1")


def _jobs(cluster: Cluster) -> Finding:
    if not cluster.status:
        mend = "`ray start --head` without --include-dashboard=false; its log is dashboard.log on the head"
        return Finding("jobs API", "warn", "does not answer: --submit and `ray job` need it", mend)
    return Finding("jobs API", "ok", f"answers at http://{cluster.dashboard}")


def _network(nodes: list[Node]) -> Finding:
    cut = [node for node in nodes if node.unreached]
    if cut:
        mend = "nodes of a cluster must reach each other at all ports: mend firewall or security group"
        return Finding("network", "bad", f"{_names(cut)} cannot reach the next node: {cut[0].unreached}", mend)
    return Finding("network", "ok", f"each of {len(nodes)} nodes reaches the next")


def _clocks(nodes: list[Node]) -> Finding:
    ahead = [node.clock[0] for node in nodes] or [0.0]
    apart, sure = max(ahead) - min(ahead), max((node.clock[1] for node in nodes), default=0.0)
    found = f"{apart:.3f} s apart at most, to {sure:.3f} s"
    if apart - 2 * sure > 2:
        far = max(nodes, key=lambda node: abs(node.clock[0]))
        mend = "run chrony or systemd-timesyncd on every host; s3:// refuses clocks that are far off"
        return Finding("clocks", "warn", f"{found}; {far.name} is {far.clock[0]:+.1f} s off", mend)
    return Finding("clocks", "ok", found)


def _storage(nodes: list[Node], where: str) -> Finding:
    broken = [node for node in nodes if node.storage]
    if broken:
        mend = "the same mount and rights on every node; for s3:// the credentials and AWS_ENDPOINT_URL of each"
        return Finding("storage", "bad", f"{where} on {_names(broken)}: {broken[0].storage}", mend)
    blind = [node for node in nodes if node.unseen]
    if blind:
        found = f"{where} is not shared: {_names(blind)} cannot read what {nodes[0].name} wrote"
        return Finding("storage", "bad", found, "a folder that all nodes mount, or s3://, gs://")
    return Finding("storage", "ok", f"{where}: written, read and shared by {len(nodes)} nodes")


def _steps(nodes: list[Node]) -> Finding:
    able = [node for node in nodes if node.step is not None]
    broken = [node for node in able if node.step]
    if broken:
        busy = all("TimeoutError" in (node.step or "") for node in broken)
        mend = "is the node busy? `ray status`" if busy else "mend what is above, then the node's own `depthray doctor`"
        found = f"{_names(broken)}: {broken[0].step}"
        return Finding("one training step", "warn" if busy else "bad", found, mend)
    if not able:
        return Finding("one training step", "warn", "not tried: no node has a CPU", "join workers first")
    return Finding("one training step", "ok", f"done on each of {len(able)} nodes")
