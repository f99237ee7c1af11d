"""`python -m cluster.one_host`: a Ray cluster of several nodes on this machine, for trying things.

Each node is a real `ray start` with processes of its own, so that one can be killed while others go on. The head has no
CPUs, as on a real cluster. All listen on loopback only and ask for a token, which lies in the cluster's own folder.
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

from depthray.errors import DepthrayError, ResourceError, UsageError

LOOPBACK = "127.0.0.1"
OBJECT_STORE = 200 * 2**20  # bytes, of each node
START_SECONDS = 120.0
STOP_SECONDS = 15.0
# Ray puts the address of a network interface in the place of 127.0.0.1 and listens on all of them, unless it takes the
# system for one without clusters, where `ray start --address` refuses. Hence a variable, and `ray start` unaware of it.
_STAY_INSIDE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_RAY = """
from ray._private import ray_constants, services
ray_constants.ENABLE_RAY_CLUSTER = True
services.resolve_ip_for_localhost = lambda host: host
from ray.scripts.scripts import main
main()
"""
_LONGEST_FOLDER = 40  # Ray's sockets lie below it, and their names end at 107 bytes


@dataclass(frozen=True)
class Plan:
    """What to start: workers of so many CPUs, and where the head answers."""

    nodes: int = 2
    cpus: int = 1
    port: int = 6379
    dashboard_port: int = 8265
    worker_ports: str = ""  # LOW-HIGH, shared by the nodes; any free ones where it is empty


@dataclass
class OneHost:
    """A running cluster: its folder, the variables by which others find it, its `ray start` processes, head first."""

    folder: Path
    env: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)


@contextmanager
def one_host(plan: Plan, folder: Path | None = None) -> Iterator[OneHost]:
    """A cluster while the context lasts. Raises ResourceError where a port is taken or a node does not start."""
    for flag, port in (("--port", plan.port), ("--dashboard-port", plan.dashboard_port)):
        _must_be_free(flag, port)
    made = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")) if folder is None else folder
    if len(str(made)) > _LONGEST_FOLDER:
        raise UsageError(f"--temp-dir {made}: at most {_LONGEST_FOLDER} characters, or Ray's socket names get too long")
    made.mkdir(parents=True, exist_ok=True)
    host = OneHost(made, exports(plan, _write_token(made)))
    try:
        for number in range(plan.nodes + 1):
            _join(host, plan, number)
    except BaseException:
        _stop(host.processes)  # the logs stay, to be looked at
        raise
    try:
        yield host
    finally:
        _stop(host.processes)
        shutil.rmtree(made, ignore_errors=True)


def exports(plan: Plan, token: Path) -> dict[str, str]:
    """The variables by which ray, serve and depthray find the cluster and are let in."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": f"{LOOPBACK}:{plan.port}",
        "RAY_API_SERVER_ADDRESS": f"http://{LOOPBACK}:{plan.dashboard_port}",
        **_STAY_INSIDE,
    }


def _must_be_free(flag: str, port: int) -> None:
    if flag == "--port" and 10002 <= port <= 19999:
        raise UsageError(f"--port {port}: Ray gives 10002 to 19999 to its workers; choose one outside")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Ray does; one that just ended is free
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ResourceError(f"{flag} {port}: {error.strerror}; choose another") from error


def _write_token(folder: Path) -> Path:
    path = folder / "token"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path


def _arguments(plan: Plan, number: int, folder: Path) -> list[str]:
    """The words of `ray start` for the head (0) or a worker."""
    own = {
        "--node-ip-address": LOOPBACK,
        "--dashboard-agent-listen-port": "0",  # any, as the nodes of one host cannot share it
        "--object-store-memory": str(OBJECT_STORE),
    }
    if plan.worker_ports:
        own["--min-worker-port"], own["--max-worker-port"] = plan.worker_ports.split("-")
    if number:
        own |= {"--address": f"{LOOPBACK}:{plan.port}", "--num-cpus": str(plan.cpus)}
    else:
        own |= {"--port": str(plan.port), "--dashboard-port": str(plan.dashboard_port), "--dashboard-host": LOOPBACK}
        own |= {
            "--num-cpus": "0",
            "--num-gpus": "0",
            "--temp-dir": str(folder),
            "--ray-client-server-port": _free_port(),
        }
    words = [word for flag, value in own.items() for word in (flag, value)]
    return ["start", "--block", "--disable-usage-stats", *([] if number else ["--head"]), *words]


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return str(probe.getsockname()[1])


def _start(host: OneHost, number: int, words: list[str]) -> subprocess.Popen[bytes]:
    theirs = {"RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"}  # of another cluster
    env = {key: value for key, value in (os.environ | host.env).items() if key not in theirs}
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"  # jobs look for `python` there
    with (host.folder / f"node{number}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _RAY, *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us only; we end them in order
        )


def _join(host: OneHost, plan: Plan, number: int) -> None:
    """Start a node; once more where a loaded machine lets Ray's own 30 seconds pass. Raises ResourceError."""
    for _ in range(2):
        host.processes.append(_start(host, number, _arguments(plan, number, host.folder)))
        if _appears(host, alive=number + 1):
            return
        _stop([host.processes.pop()])
    lines = (host.folder / f"node{number}.log").read_text("utf-8", "replace").splitlines()
    last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "no word from it")
    raise ResourceError(
        f"node {number} of the cluster at port {plan.port} did not start: {last}; logs in {host.folder}"
    )


def _appears(host: OneHost, *, alive: int) -> bool:
    """Whether so many nodes come to be alive, rather than that the newest ends or takes too long."""
    end = time.monotonic() + START_SECONDS
    while _alive(host) < alive:
        if host.processes[-1].poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.3)
    return True


def _alive(host: OneHost) -> int:
    """Nodes that are alive, as the dashboard says; 0 while it does not answer."""
    token = Path(host.env["RAY_AUTH_TOKEN_PATH"]).read_text("ascii")
    request = urllib.request.Request(
        f"{host.env['RAY_API_SERVER_ADDRESS']}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            nodes = json.load(answer)["data"]["summary"]
    except (OSError, ValueError, KeyError):
        return 0
    return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End the nodes, workers before the head, and whatever processes of theirs are left."""
    for together in (processes[1:], processes[:1]):
        for process in together:
            process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for process in together:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(argv: list[str] | None = None) -> int:
    """Start a cluster and say how to use it, until Ctrl-C, SIGTERM or the end of the command that stands after --."""
    words = sys.argv[1:] if argv is None else argv
    cut = words.index("--") if "--" in words else len(words)
    args = build_parser().parse_args(words[:cut])
    plan = Plan(args.nodes, args.cpus, args.port, args.dashboard_port, args.worker_ports)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with one_host(plan, args.temp_dir) as host:
            return _use(host, words[cut + 1 :])
    except DepthrayError as error:
        print(f"one_host: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.one_host", description=__doc__, usage="%(prog)s [options] [-- COMMAND ...]"
    )
    parser.add_argument("--nodes", type=int, default=2, help="workers beside the head (default: 2)")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs a worker (default: 1)")
    parser.add_argument("--port", type=int, default=6379, help="of the head (default: 6379)")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="and jobs API (default: 8265)")
    parser.add_argument("--worker-ports", default="", metavar="LOW-HIGH", help="for workers (default: any)")
    parser.add_argument(
        "--temp-dir", type=Path, help="folder of logs and token, removed at the end (default: a new one)"
    )
    return parser


def _use(host: OneHost, command: list[str]) -> int:
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
