"""A Ray cluster whose nodes are hosts of their own: network namespaces with an address each, joined by a bridge.

    with hosts.cluster(workers=2) as cluster:
        cluster.nodes[1].kill()      SIGKILL of all processes of a host
        cluster.start(cluster.nodes[1])

Needs root and `ip netns` (cluster.one_host has several nodes without). The hosts share the file system, as with NFS,
but for Ray's folder. Ports and the folder are fixed: one of these at a time. What is left of one that was killed is
removed at the next start.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RAY = str(Path(sys.executable).parent / "ray")
FOLDER = Path("/tmp/rE")  # short: paths of Ray's sockets begin with it, and have at most 107 bytes
NAME, SUBNET = "drE", "10.78.0"
BRIDGE = f"{NAME}0"
GCS, DASHBOARD, AGENT, WORKERS = 7500, 7510, 7520, (31000, 31400)
# A node that does not answer is given up after 3 to 4 s. With Ray's defaults one that was switched off is after 12 s,
# and one whose cable was cut after 65 s.
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
# As Ray's own tests of its autoscaler set them; the ids are those of the head.
AUTOSCALING = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": "f" * 51 + "00000",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": "f" * 51 + "00000",
}
# Under its own name, `fake_multinode`, Ray's provider wants a file of defaults that is not in its wheel.
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
LISTS = [f"{what}_commands" for what in ("setup", "initialization", "head_setup", "worker_setup")]
LISTS += ["head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"]


def unavailable() -> str:
    """Why this machine does not allow network namespaces; empty where it does."""
    try:
        _ip("netns", "add", f"{NAME}try")
        _ip("netns", "delete", f"{NAME}try")
    except OSError as error:
        return f"hosts are network namespaces, which need root and iproute2: {error}"
    return ""


@dataclass
class Host:
    """A network namespace with the Ray processes in it."""

    number: int  # 1 = the head
    process: subprocess.Popen[bytes] | None = None

    @property
    def namespace(self) -> str:
        return f"{NAME}{self.number}"

    @property
    def address(self) -> str:
        return f"{SUBNET}.{self.number}"

    def pids(self) -> list[int]:
        """All processes of the host."""
        listing = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True)
        return [int(pid) for pid in listing.stdout.split()]

    def kill(self) -> None:
        """SIGKILL of all processes, as if the machine had lost its power."""
        for _ in range(5):  # also those that are started meanwhile
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()


@dataclass
class Cluster:
    """A head without CPUs and workers of one CPU each, on hosts of their own."""

    cpus: int = 1
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    nodes: list[Host] = field(default_factory=list)  # the head first
    autoscales: bool = False  # the head's own autoscaler starts workers on its host, up to two

    @property
    def url(self) -> str:
        """The dashboard, which takes jobs."""
        return f"http://{self.nodes[0].address}:{DASHBOARD}"

    @property
    def address(self) -> str:
        return f"{self.nodes[0].address}:{GCS}"

    def environment(self) -> dict[str, str]:
        """The variables by which others find the cluster and authenticate."""
        # Without the variables of another cluster that this shell may use.
        plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}:{plain['PATH']}"  # jobs look for `python` here
        own = {**QUICK, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_API_SERVER_ADDRESS": self.url}
        # Gloo would resolve the name of a host to loopback, where no other host is.
        return {**plain, **own, "PATH": path, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}

    def start(self, host: Host) -> None:
        """Start Ray on a host, and wait until the cluster has it."""
        common = ["--block", "--disable-usage-stats", "--node-ip-address", host.address]
        ports = ["--min-worker-port", str(WORKERS[0]), "--max-worker-port", str(WORKERS[1])]
        common += [*ports, "--dashboard-agent-listen-port", str(AGENT), "--object-store-memory", "100000000"]
        if host.number == 1:
            own = ["--head", "--port", str(GCS), "--dashboard-host", host.address, "--dashboard-port", str(DASHBOARD)]
            own += ["--num-cpus", "0", "--num-gpus", "0", "--temp-dir", str(FOLDER / "ray")]
            own += ["--ray-client-server-port", str(AGENT + 1), *self._autoscaling()]
        else:
            own = ["--address", self.address, "--num-cpus", str(self.cpus), "--num-gpus", "0"]
        before = self.node_ids(host)  # one that was killed a moment ago may still count as alive
        env = self.environment() | (AUTOSCALING if self.autoscales else {})
        env.pop("RAY_API_SERVER_ADDRESS")
        with (FOLDER / f"host{host.number}.log").open("ab") as log:
            command = ["ip", "netns", "exec", host.namespace, *self._own_disk(host), RAY, "start", *common, *own]
            host.process = subprocess.Popen(
                command, env=env, cwd=FOLDER, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 180
        while not self.node_ids(host) - before:
            if time.monotonic() > end or host.process.poll() is not None:
                raise TimeoutError(f"host {host.number} did not join; see {FOLDER}/host{host.number}.log")
            time.sleep(0.3)

    def _own_disk(self, host: Host) -> list[str]:
        """Arguments before a command by which a worker's host has a disk of its own for what Ray keeps there.

        In a folder that hosts share, a node that is restarted unpacks the job's code again, while the driver runs it.
        """
        if host.number == 1:
            return []
        disk, folder = FOLDER / f"disk{host.number}", FOLDER / "ray"
        disk.mkdir(exist_ok=True)
        return ["sh", "-c", f'mount --bind {disk} {folder} && exec "$@"', "sh"]

    def _autoscaling(self) -> list[str]:
        """Flags of a head whose autoscaler starts nodes as processes next to it, as Ray's own tests have it."""
        if not self.autoscales:
            return []
        kinds: dict[str, object] = {"worker": {"resources": {"CPU": self.cpus}, "node_config": {}, "max_workers": 2}}
        kinds["ray.head.default"] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        provider = {"type": "external", "module": PROVIDER, "gcs_address": self.address, "launch_multiple": True}
        provider |= {"disable_node_updaters": True, "disable_launch_config_check": True}
        provider["head_node_id"] = AUTOSCALING["RAY_OVERRIDE_NODE_ID_FOR_TESTING"]
        config = {"cluster_name": "grows", "max_workers": 2, "idle_timeout_minutes": 0.3, "upscaling_speed": 1.0}
        config |= {"provider": provider, "available_node_types": kinds, "head_node_type": "ray.head.default"}
        config |= {**{key: [] for key in LISTS}, "file_mounts": {}, "auth": {}, "docker": {}}
        path = FOLDER / "autoscaling.yaml"
        path.write_text(json.dumps(config))
        return ["--autoscaling-config", str(path)]

    def alive(self) -> int:
        """Nodes that are alive, as the dashboard reports; 0 while it does not answer."""
        return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in self._node_summaries())

    def _node_summaries(self) -> list[dict[str, Any]]:
        """What the dashboard reports of the nodes; nothing while it does not answer."""
        bearer = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.url}/nodes?view=summary", headers=bearer)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return list(json.load(answer)["data"]["summary"])
        except (OSError, ValueError, KeyError):
            return []

    def on_head(self, command: list[str]) -> list[str]:
        """A command as it runs on the head."""
        return ["ip", "netns", "exec", self.nodes[0].namespace, *command]

    def node_ids(self, host: Host) -> set[str]:
        """Ray's ids of the nodes that are alive on a host."""
        raylets: list[dict[str, str]] = [dict(node.get("raylet", {})) for node in self._node_summaries()]
        here = [r for r in raylets if r.get("state") == "ALIVE" and r.get("nodeManagerAddress") == host.address]
        return {str(raylet["nodeId"]) for raylet in here}


@contextmanager
def cluster(*, workers: int = 2, cpus: int = 1, autoscales: bool = False) -> Iterator[Cluster]:
    """A head and workers while the context lasts."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    _remove(range(1, 10))  # what an earlier cluster, of any size, has left
    created = Cluster(cpus=cpus, autoscales=autoscales, nodes=[Host(number) for number in range(1, workers + 2)])
    try:
        _connect(created.nodes)
        for host in created.nodes:
            created.start(host)
        yield created
    finally:
        for host in reversed(created.nodes):  # workers first: they would try to reach the head again
            host.kill()
        _remove(range(1, workers + 2))
        for path in (FOLDER / "ray", *FOLDER.glob("disk*")):
            shutil.rmtree(path, ignore_errors=True)


def _connect(nodes: list[Host]) -> None:
    """A bridge, and for each host a cable to it; this machine itself is the address 254 on it."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{SUBNET}.254/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    for host in nodes:
        outer = f"{NAME}v{host.number}"
        _ip("netns", "add", host.namespace)
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        _ip("link", "set", outer, "master", BRIDGE, "up")
        _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.namespace, "link", "set", "eth0", "up")
        _ip("-n", host.namespace, "link", "set", "lo", "up")
        _ip("-n", host.namespace, "route", "add", "default", "via", f"{SUBNET}.254")  # Ray finds its own address by it


def _remove(numbers: range) -> None:
    """Remove namespaces and bridge, if they exist."""
    for number in numbers:
        host = Host(number)
        if Path(f"/run/netns/{host.namespace}").exists():
            host.kill()
            _ip("netns", "delete", host.namespace)
        # Else it would exist for a moment longer than its namespace, in the way of the next one.
        subprocess.run(["ip", "link", "delete", f"{NAME}v{number}"], capture_output=True)
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
