"""What the facts of a cluster's nodes mean for training, and how to fix what is wrong."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cluster.diagnostics import probe
from depthray.cli.doctor import Finding

_GIB = 2**30


@dataclass
class NodeFacts:
    """What a node has reported."""

    name: str
    cpus: float = 1
    gpus: float = 0
    versions: dict[str, str] = field(default_factory=dict)
    shared: tuple[int, int] | None = None  # bytes free, of
    disk: tuple[int, int] = (0, 1)  # bytes free, of
    clock: tuple[float, float] = (0, 0)  # seconds ahead of this machine, and the uncertainty of that
    unreached: str = ""  # why the next node could not be reached
    storage: str = ""  # why it could not be written and read
    unreadable: str = ""  # why the first node's file could not be read
    step: str | None = None  # why training failed; None: it has no CPU to train on


@dataclass
class ClusterFacts:
    """What all nodes have reported."""

    nodes: list[NodeFacts]
    dead: int = 0
    dashboard: str = ""  # host:port
    status: int = 401  # of the jobs API without a token; 0 where it does not answer
    unresponsive: list[str] = field(default_factory=list)  # names of nodes


def judge(cluster: ClusterFacts, storage: str | None) -> Iterator[Finding]:
    """A finding for each subject, whether it is a problem or not."""
    yield _nodes_finding(cluster)
    yield _resources_finding(cluster.nodes)
    yield from _version_findings(cluster.nodes)
    yield _least_space("shared memory", cluster.nodes, lambda node: node.shared, good=2, advice=_MORE_SHARED)
    yield _least_space("disk", cluster.nodes, lambda node: node.disk, good=10, least=1, advice=_MORE_DISK)
    yield _auth_finding(cluster)
    yield _jobs_finding(cluster)
    yield _network_finding(cluster.nodes)
    yield _clocks_finding(cluster.nodes)
    if storage:
        yield _storage_finding(cluster.nodes, storage)
    yield _steps_finding(cluster.nodes)


_MORE_SHARED = "docker run --shm-size=8g; on Kubernetes an emptyDir of medium Memory at /dev/shm; Ray is slow without"
_MORE_DISK = "free some space, or give `ray start` another --temp-dir; Ray stops placing objects on a disk 95 % full"


def _join_names(nodes: list[NodeFacts]) -> str:
    names = [node.name for node in nodes]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _nodes_finding(cluster: ClusterFacts) -> Finding:
    if cluster.unresponsive:
        detail = f"{', '.join(cluster.unresponsive[:3])}: no answer"
        return Finding("nodes", "bad", detail, "`ray list nodes`; the raylet's log on it; restart the node")
    # Dead ones are no fault: an autoscaler removes nodes that are idle.
    detail = f"{len(cluster.nodes)} alive" + (f", {cluster.dead} dead" if cluster.dead else "")
    return Finding("nodes", "ok", detail)


def _resources_finding(nodes: list[NodeFacts]) -> Finding:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    detail = "; ".join(f"{node.name}: {node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes[:8])
    if not cpus:
        advice = "join workers: `ray start --address HEAD:6379`; with autoscaling they come when a job asks for them"
        return Finding("resources", "bad", f"no CPU to train on ({detail})", advice)
    return Finding("resources", "ok", f"{cpus:g} CPUs, {gpus:g} GPUs ({detail}{'; ...' if len(nodes) > 8 else ''})")


def _version_findings(nodes: list[NodeFacts]) -> Iterator[Finding]:
    for package in ("python", *probe.PACKAGES):
        by_version: dict[str, list[NodeFacts]] = {}
        for node in nodes:
            by_version.setdefault(node.versions.get(package, "not installed"), []).append(node)
        yield _version_finding(package, by_version)


def _version_finding(package: str, by_version: dict[str, list[NodeFacts]]) -> Finding:
    detail = "; ".join(f"{version} on {_join_names(nodes)}" for version, nodes in by_version.items())
    if "not installed" in by_version:
        advice = "pip install -c constraints.txt on every node, or the image of Containerfile"
        # A job carries its own copy, so only training without --submit needs it.
        if package == "depthray":
            return Finding(
                package, "warn", detail, f"{advice}; until then train with --submit, which sends the code along"
            )
        return Finding(package, "bad", detail, advice)
    if len(by_version) > 1:
        return Finding(package, "bad", detail, "the same on every node: one image, or pip install -c constraints.txt")
    return Finding(package, "ok", f"{next(iter(by_version), 'unknown')} on all nodes")


def _least_space(
    name: str,
    nodes: list[NodeFacts],
    space_of: Callable[[NodeFacts], tuple[int, int] | None],
    *,
    good: float,
    advice: str,
    least: float = 0,
) -> Finding:
    """The node with the least space; below `good` GiB slows or threatens training, below `least` stops it."""
    spaces = [(space[0] / _GIB, space[0] / max(space[1], 1), node.name) for node in nodes if (space := space_of(node))]
    if not spaces:
        return Finding(name, "ok", "none on any node")
    free, _, where = min(spaces)
    # Ray places no objects on a disk that is 95 % full, however large.
    full = [space for space in spaces if space[1] < 0.05 and name == "disk"]
    detail = f"at least {free:.3g} GiB free ({where})"
    if free >= good and not full:
        return Finding(name, "ok", detail)
    if full:
        detail += f"; more than 95 % full: {full[0][2]}"
    return Finding(name, "bad" if free < least else "warn", detail, advice)


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _auth_finding(cluster: ClusterFacts) -> Finding:
    """An open jobs API runs any code for anybody who reaches it."""
    if cluster.status in (401, 403):
        return Finding("auth", "ok", f"the jobs API at {cluster.dashboard} requires a token")
    if not cluster.status:
        return Finding(
            "auth", "warn", "unknown, as the jobs API does not answer", "start the head with RAY_AUTH_MODE=token"
        )
    advice = "restart all nodes with RAY_AUTH_MODE=token and one token (ray get-auth-token --generate)"
    if _is_loopback(cluster.dashboard):
        detail = f"no token: whoever is on the head's machine runs code as you by http://{cluster.dashboard}"
        return Finding("auth", "warn", detail, advice)
    detail = f"no token: whoever reaches http://{cluster.dashboard} runs code on the cluster"
    return Finding("auth", "bad", detail, f"{advice}; and --dashboard-host=127.0.0.1")


def _jobs_finding(cluster: ClusterFacts) -> Finding:
    if not cluster.status:
        advice = "`ray start --head` without --include-dashboard=false; its log is dashboard.log on the head"
        return Finding("jobs API", "warn", "does not answer: --submit and `ray job` need it", advice)
    return Finding("jobs API", "ok", f"answers at http://{cluster.dashboard}")


def _network_finding(nodes: list[NodeFacts]) -> Finding:
    cut = [node for node in nodes if node.unreached]
    if cut:
        advice = "nodes of a cluster must reach each other at all ports: fix the firewall or security group"
        return Finding("network", "bad", f"{_join_names(cut)} cannot reach the next node: {cut[0].unreached}", advice)
    return Finding("network", "ok", f"each of {len(nodes)} nodes reaches the next")


def _clocks_finding(nodes: list[NodeFacts]) -> Finding:
    ahead = [node.clock[0] for node in nodes] or [0.0]
    apart, uncertainty = max(ahead) - min(ahead), max((node.clock[1] for node in nodes), default=0.0)
    detail = f"{apart:.3f} s apart at most, to {uncertainty:.3f} s"
    # A busy node answers late, which is no fault of its clock.
    if apart - 2 * uncertainty > 2:
        far = max(nodes, key=lambda node: abs(node.clock[0]))
        advice = "run chrony or systemd-timesyncd on every host; s3:// refuses clocks that are far off"
        return Finding("clocks", "warn", f"{detail}; {far.name} is {far.clock[0]:+.1f} s off", advice)
    return Finding("clocks", "ok", detail)


def _storage_finding(nodes: list[NodeFacts], where: str) -> Finding:
    broken = [node for node in nodes if node.storage]
    if broken:
        advice = "the same mount and permissions on every node; for s3:// the credentials and AWS_ENDPOINT_URL of each"
        return Finding("storage", "bad", f"{where} on {_join_names(broken)}: {broken[0].storage}", advice)
    others = [node for node in nodes if node.unreadable]
    if others:
        detail = f"{where} is not shared: {_join_names(others)} cannot read what {nodes[0].name} wrote"
        return Finding("storage", "bad", detail, "a folder that all nodes mount, or s3://, gs://")
    return Finding("storage", "ok", f"{where}: written, read and shared by {len(nodes)} nodes")


def _steps_finding(nodes: list[NodeFacts]) -> Finding:
    able = [node for node in nodes if node.step is not None]
    broken = [node for node in able if node.step]
    if broken:
        busy = all("TimeoutError" in (node.step or "") for node in broken)
        advice = "is the node busy? `ray status`" if busy else "fix what is above, then run `depthray doctor` there"
        detail = f"{_join_names(broken)}: {broken[0].step}"
        return Finding("one training step", "warn" if busy else "bad", detail, advice)
    if not able:
        return Finding("one training step", "warn", "not tried: no node has a CPU", "join workers first")
    return Finding("one training step", "ok", f"done on each of {len(able)} nodes")
