"""`python -m cluster.one_host`: a Ray cluster of several nodes on this machine, for trying things.

Each node is a real `ray start` with processes of its own, so that one can be killed while the others continue. The head
has no CPUs, as on a real cluster. All listen on loopback only and require a token, which is in the cluster's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cluster import ray_private
from depthray.errors import DepthrayError, ResourceError, UsageError

LOOPBACK = "127.0.0.1"
OBJECT_STORE = 200 * 2**20  # bytes, of each node; by default each would take 30 % of the machine's memory
START_SECONDS = 120.0
STOP_SECONDS = 15.0
# Keeps Ray from listening on all interfaces; `ray_private.START_ON_LOOPBACK` says how.
_LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_MAX_FOLDER_LENGTH = 40  # Ray's sockets are below it, and the system allows their paths 107 bytes


@dataclass(frozen=True)
class HostPlan:
    """What to start: a number of workers, the CPUs of each, and the ports of the head."""

    nodes: int = 2
    cpus: int = 1
    port: int = 6379
    dashboard_port: int = 8265
    worker_ports: str = ""  # LOW-HIGH, shared by the nodes; "": any free ports


@dataclass
class OneHost:
    """A running cluster: its folder, the variables by which others find it, its `ray start` processes, head first."""

    folder: Path
    env: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)


@contextmanager
def one_host(plan: HostPlan, folder: Path | None = None) -> Iterator[OneHost]:
    """A cluster while the context lasts. Raises ResourceError where a port is taken or a node does not start."""
    for flag, port in (("--port", plan.port), ("--dashboard-port", plan.dashboard_port)):
        _check_port(flag, port)
    temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")) if folder is None else folder
    if len(str(temp)) > _MAX_FOLDER_LENGTH:
        raise UsageError(
            f"--temp-dir {temp}: at most {_MAX_FOLDER_LENGTH} characters, or Ray's socket paths are too long"
        )
    temp.mkdir(parents=True, exist_ok=True)
    host = OneHost(temp, cluster_variables(plan, _write_token(temp)))
    try:
        for number in range(plan.nodes + 1):  # the head first, which the others join
            join_node(host, plan, number)
    except BaseException:
        stop_nodes(host.processes)  # the folder stays: its logs say why
        raise
    try:
        yield host
    finally:
        stop_nodes(host.processes)
        shutil.rmtree(temp, ignore_errors=True)


def cluster_variables(plan: HostPlan, token: Path) -> dict[str, str]:
    """The variables by which ray, serve and depthray find the cluster and authenticate."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": f"{LOOPBACK}:{plan.port}",
        "RAY_API_SERVER_ADDRESS": f"http://{LOOPBACK}:{plan.dashboard_port}",
        **_LOOPBACK_ONLY,
    }


def _check_port(flag: str, port: int) -> None:
    if flag == "--port" and 10002 <= port <= 19999:
        raise UsageError(f"--port {port}: Ray gives 10002 to 19999 to its workers; choose another")
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Ray does: a port whose last user just ended is free
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ResourceError(f"{flag} {port}: {error.strerror}; choose another") from error


def _write_token(folder: Path) -> Path:
    path = folder / "token"
    path.unlink(missing_ok=True)  # an old file may be readable for others, and would keep its mode
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path


def _arguments(plan: HostPlan, number: int, folder: Path) -> list[str]:
    """The arguments of `ray start` for the head (0) or a worker."""
    flags = {
        "--node-ip-address": LOOPBACK,
        "--dashboard-agent-listen-port": "0",  # any free port, as the nodes of one host cannot share the default
        "--object-store-memory": str(OBJECT_STORE),
    }
    if plan.worker_ports:
        flags["--min-worker-port"], flags["--max-worker-port"] = plan.worker_ports.split("-")
    if number:
        flags |= {"--address": f"{LOOPBACK}:{plan.port}", "--num-cpus": str(plan.cpus)}
    else:
        flags |= {"--port": str(plan.port), "--dashboard-port": str(plan.dashboard_port), "--dashboard-host": LOOPBACK}
        flags |= {
            "--num-cpus": "0",
            "--num-gpus": "0",
            "--temp-dir": str(folder),
            "--ray-client-server-port": _free_port(),  # the default may be another cluster's of this machine
        }
    arguments = [text for pair in flags.items() for text in pair]
    return ["start", "--block", "--disable-usage-stats", *([] if number else ["--head"]), *arguments]


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return str(probe.getsockname()[1])


def _start_node(host: OneHost, number: int, arguments: list[str]) -> subprocess.Popen[bytes]:
    foreign = {"RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"}  # may be those of another cluster
    env = {key: value for key, value in (os.environ | host.env).items() if key not in foreign}
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"  # jobs look for `python` there
    with (host.folder / f"node{number}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", ray_private.START_ON_LOOPBACK, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which stops the nodes in order
        )


def join_node(host: OneHost, plan: HostPlan, number: int) -> None:
    """Start a node, twice where a loaded machine exceeds Ray's own limit of 30 seconds. Raises ResourceError."""
    for _ in range(2):
        host.processes.append(_start_node(host, number, _arguments(plan, number, host.folder)))
        if _wait_until_alive(host, alive=number + 1):
            return
        stop_nodes([host.processes.pop()])
    lines = (host.folder / f"node{number}.log").read_text("utf-8", "replace").splitlines()
    last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "its log is empty")
    raise ResourceError(
        f"node {number} of the cluster at port {plan.port} did not start: {last}; logs in {host.folder}"
    )


def _wait_until_alive(host: OneHost, *, alive: int) -> bool:
    """Whether so many nodes become alive, before the newest process ends or START_SECONDS are over."""
    end = time.monotonic() + START_SECONDS
    while _count_alive(host) < alive:
        if host.processes[-1].poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.3)
    return True


def _count_alive(host: OneHost) -> int:
    """The number of nodes alive, by the dashboard; 0 while it does not answer."""
    token = Path(host.env["RAY_AUTH_TOKEN_PATH"]).read_text("ascii")
    # The dashboard rather than Ray: connecting to a cluster makes this process part of it.
    request = urllib.request.Request(
        f"{host.env['RAY_API_SERVER_ADDRESS']}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            nodes = json.load(answer)["data"]["summary"]
    except (OSError, ValueError, KeyError):
        return 0
    return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)


def stop_nodes(processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop the nodes, workers before the head, and kill what is left of their process groups."""
    for together in (processes[1:], processes[:1]):  # else workers would try to reconnect to the head
        for process in together:
            process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for process in together:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            with suppress(ProcessLookupError):  # the group also has workers that ignored SIGTERM
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(argv: list[str] | None = None) -> int:
    """Start a cluster and print how to use it, until Ctrl-C, SIGTERM or the end of the command that follows --."""
    arguments = sys.argv[1:] if argv is None else argv
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    args = build_parser().parse_args(arguments[:cut])
    plan = HostPlan(args.nodes, args.cpus, args.port, args.dashboard_port, args.worker_ports)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with one_host(plan, args.temp_dir) as host:
            return _run_or_wait(host, arguments[cut + 1 :])
    except DepthrayError as error:
        print(f"one_host: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m cluster.one_host`."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.one_host", description=__doc__, usage="%(prog)s [options] [-- COMMAND ...]"
    )
    parser.add_argument("--nodes", type=int, default=2, help="worker nodes besides the head (default: 2)")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of a worker node (default: 1)")
    parser.add_argument("--port", type=int, default=6379, help="port of the head (default: 6379)")
    parser.add_argument(
        "--dashboard-port", type=int, default=8265, help="port of the dashboard and jobs API (default: 8265)"
    )
    parser.add_argument(
        "--worker-ports", default="", metavar="LOW-HIGH", help="ports of worker processes (default: any)"
    )
    parser.add_argument(
        "--temp-dir", type=Path, help="folder of logs and token, removed at the end (default: a new folder)"
    )
    return parser


def _run_or_wait(host: OneHost, command: list[str]) -> int:
    """Run the command with the cluster's variables, or print them and wait."""
    if command:
        return subprocess.run(command, env=os.environ | host.env, check=False).returncode
    print("\n".join(f"export {key}={value}" for key, value in host.env.items()))
    for number, process in enumerate(host.processes):
        print(f"# {'node ' + str(number) if number else 'head'}: process {process.pid}, {host.folder}/node{number}.log")
    print("# Ctrl-C ends all of them; kill PROCESS ends one", flush=True)
    while host.processes[0].poll() is None:
        time.sleep(0.5)
    raise ResourceError(f"the head ended with exit code {host.processes[0].returncode}")


if __name__ == "__main__":
    sys.exit(main())
