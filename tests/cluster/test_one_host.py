"""A cluster on one host: how nodes are started, reported and stopped, with a stand-in for `ray start`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cluster import one_host as module
from cluster import ray_private
from cluster.one_host import HostPlan, OneHost, cluster_variables, main, one_host
from depthray.errors import ResourceError, UsageError

# Sleeps as `ray start --block` does, records SIGTERM, and has a child that ignores it.
SLEEPER = """
import os, signal, subprocess, sys, time
name = "head" if "--head" in sys.argv else "worker"
def end(number, frame):
    open(os.environ["ENDED"], "a").write(name + " ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
print(os.environ["RAY_AUTH_MODE"], sorted(key for key in os.environ if key.startswith("RAY_A")), flush=True)
time.sleep(60)
"""


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if not 10002 <= port <= 19999:
            return port


@pytest.fixture
def plan() -> HostPlan:
    return HostPlan(nodes=2, port=free_port(), dashboard_port=free_port())


@pytest.fixture
def _sleepers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`ray start` only sleeps, and the dashboard counts those that do."""

    def alive(host: OneHost) -> int:
        return sum(log.read_text().startswith("token") for log in host.folder.glob("node*.log"))

    monkeypatch.setattr(ray_private, "START_ON_LOOPBACK", SLEEPER)
    monkeypatch.setattr(module, "_count_alive", alive)
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")


def gone(session: int) -> bool:
    """Whether no process of a session is left, a moment after it was killed."""
    end = time.monotonic() + 5
    while living(session) and time.monotonic() < end:
        time.sleep(0.01)
    return not living(session)


def living(session: int) -> bool:
    """Whether a process of a session is left, except zombies."""
    for stat_file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # of a process that ended meanwhile
            state, _, _, its_session = stat_file.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                return True
    return False


def starts(plan: HostPlan, number: int) -> dict[str, str]:
    arguments = module._arguments(plan, number, Path("/tmp/x"))
    return {flag: arguments[index + 1] for index, flag in enumerate(arguments[:-1]) if flag.startswith("--")}


def test_every_node_listens_on_loopback_and_the_head_computes_nothing(plan: HostPlan) -> None:
    head, worker = starts(plan, 0), starts(plan, 1)
    assert head["--node-ip-address"] == worker["--node-ip-address"] == head["--dashboard-host"] == "127.0.0.1"
    assert (head["--num-cpus"], head["--num-gpus"], worker["--num-cpus"]) == ("0", "0", "1")
    assert worker["--address"] == f"127.0.0.1:{plan.port}" and "--head" in head and "--head" not in worker


def test_worker_ports_are_those_given() -> None:
    given = starts(HostPlan(worker_ports="30500-30700"), 1)
    assert (given["--min-worker-port"], given["--max-worker-port"]) == ("30500", "30700")


def test_others_find_the_cluster_and_need_the_token(plan: HostPlan) -> None:
    env = cluster_variables(plan, Path("/tmp/x/token"))
    assert env["RAY_AUTH_MODE"] == "token" and env["RAY_AUTH_TOKEN_PATH"] == "/tmp/x/token"
    assert env["RAY_ADDRESS"].startswith("127.0.0.1:") and env["RAY_API_SERVER_ADDRESS"].startswith("http://127.0.0.1:")


def test_the_token_is_long_new_and_ours_alone(tmp_path: Path) -> None:
    path = module._write_token(tmp_path)
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(first) == 64
    assert module._write_token(tmp_path).read_text() != first


@pytest.mark.usefixtures("_sleepers")
def test_all_processes_and_the_folder_end_with_the_context(plan: HostPlan, tmp_path: Path) -> None:
    with one_host(plan) as host:
        sessions = [process.pid for process in host.processes]
        logs = [(host.folder / f"node{number}.log").read_text() for number in range(3)]
        assert len(sessions) == 3 and all(log.startswith("token") and "'RAY_AUTH_TOKEN'" not in log for log in logs)
    assert not host.folder.exists() and all(gone(session) for session in sessions)
    assert (tmp_path / "ended").read_text().split()[-1] == "head"


@pytest.mark.usefixtures("_sleepers")
def test_a_node_that_does_not_start_is_tried_again_and_then_reported(
    plan: HostPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_private, "START_ON_LOOPBACK", "print('no room'); raise SystemExit(3)")
    folder = Path("/tmp") / f"oh{os.getpid()}"
    tried: list[int] = []
    start = module._start_node

    def count(host: OneHost, number: int, arguments: list[str]) -> Any:
        tried.append(number)
        return start(host, number, arguments)

    monkeypatch.setattr(module, "_start_node", count)
    with pytest.raises(ResourceError, match=r"node 0 .* did not start: no room; logs in"), one_host(plan, folder):
        pass
    assert tried == [0, 0] and (folder / "node0.log").exists()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("flag", ["--port", "--dashboard-port"])
def test_a_taken_port_is_reported_before_anything_starts(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"--port": "--dashboard-port", "--dashboard-port": "--port"}[flag]
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        arguments = [flag, str(taken), other, str(free_port())]
        if 10002 <= taken <= 19999:
            pytest.skip("the system gave a port of Ray's workers")
        assert main(arguments) == 5
    assert f"{flag} {taken}: Address already in use" in capsys.readouterr().err


def test_ports_of_workers_and_long_folders_are_refused(plan: HostPlan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="10002 to 19999"), one_host(HostPlan(port=10500)):
        pass
    with pytest.raises(UsageError, match="at most 40 characters"), one_host(plan, Path("/tmp") / ("x" * 60)):
        pass


@pytest.mark.usefixtures("_sleepers")
def test_a_command_gets_the_variables_and_its_code_is_returned(plan: HostPlan, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f"import os; open({str(seen)!r}, 'w').write(os.environ['RAY_ADDRESS']); raise SystemExit(7)"
    arguments = ["--nodes", "1", "--port", str(plan.port), "--dashboard-port", str(plan.dashboard_port)]
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([*arguments, "--", sys.executable, "-c", script]) == 7
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen.read_text() == f"127.0.0.1:{plan.port}"


@pytest.mark.usefixtures("_sleepers")
def test_a_head_that_ends_is_reported(plan: HostPlan, capsys: pytest.CaptureFixture[str]) -> None:
    with one_host(plan) as host:
        os.killpg(host.processes[0].pid, signal.SIGKILL)
        with pytest.raises(ResourceError, match="the head ended"):
            module._run_or_wait(host, [])
    assert f"export RAY_ADDRESS=127.0.0.1:{plan.port}" in capsys.readouterr().out


def test_nodes_are_counted_by_the_dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: HostPlan) -> None:
    requests: list[Any] = []

    class Answer:
        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

        def read(self) -> bytes:
            return b'{"data": {"summary": [{"raylet": {"state": "ALIVE"}}, {"raylet": {"state": "DEAD"}}, {}]}}'

    def urlopen(request: Any, timeout: float) -> Answer:
        requests.append(request)
        return Answer()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    token = module._write_token(tmp_path)
    host = OneHost(tmp_path, cluster_variables(plan, token))
    assert module._count_alive(host) == 1
    assert requests[0].get_header("Authorization") == f"Bearer {token.read_text()}"
    monkeypatch.undo()
    begun = time.monotonic()
    assert module._count_alive(host) == 0 and time.monotonic() - begun < 5
