"""`--submit` to a head of `ray start` that requires a token: log, exit code, `ray job stop`, and the resume command.

The job trains code of one's own, from a folder that the cluster does not see.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hangs
import httpx
import pytest
from own_package import NAMES, OWN, forget, write_all, write_pairs
from paths import ROOT

from depthray.__main__ import main
from depthray.checkpoints import manifest, select
from depthray.runs import console, progress, trackers

TOKEN = secrets.token_hex(32)
PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
)
OVERRIDES = [
    *("data.size=32,64", "data.val_fraction=0.1", "train.batch_size=8", "train.precision=fp32"),
    *("train.log_seconds=0.2", "train.epochs=3"),
]
# Of the job's own loss: once there is a checkpoint each step waits, so that the job is stopped in between.
SLOWLY = """
import time
from pathlib import Path

slow = Path({mark!r})
if slow.exists() and any(slow.parent.glob("run/checkpoints/*/manifest.json")):
    time.sleep(5.0)
"""


def environment() -> dict[str, str]:
    """That of a user, who knows the token, without what Ray has set in this process."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}
    path = f"{Path(sys.executable).parent}:{plain['PATH']}"  # the head's `python` is that of its jobs
    settings |= {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_worker_niceness": "0"}  # as tests run beside others
    settings |= {trackers.VARIABLE: ",".join(trackers.DEFAULT)}  # and curves, which other tests do without
    return {**plain, **settings, "PATH": path, "PYTHONPATH": str(ROOT)}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of the dashboard of a head of 2 CPUs."""
    folder = tempfile.mkdtemp(prefix="ray")  # a short path: socket names are limited to 107 bytes
    ports = free_ports(len(PORTS))
    flags = [f"--{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
    flags += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=2"]
    flags += ["--object-store-memory=100000000", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", *flags]
    url = f"http://127.0.0.1:{ports[1]}"
    mark, quiet = f"RAY_TMPDIR={folder}", subprocess.DEVNULL
    more = dict([mark.split("=")])
    with subprocess.Popen(command, env=environment() | more, cwd=folder, stdout=quiet, stderr=quiet) as process:
        try:
            hangs.until(lambda: answers(url))
            yield url
        finally:
            process.kill()  # SIGTERM would take half a minute
            for pid in find_processes(mark):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def find_processes(mark: str) -> list[int]:
    """The processes with an entry in their environment."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                pids.append(int(folder.name))
        except OSError:
            continue
    return pids


def answers(url: str) -> bool:
    """Whether the dashboard is there and refuses what comes without its token."""
    try:
        return httpx.get(f"{url}/api/version").status_code == 401
    except httpx.HTTPError:
        return False


class Command:
    """A running `depthray ...`, its output in a file."""

    def __init__(self, log: Path, *arguments: str, cwd: Path = ROOT) -> None:
        self.log = log
        with log.open("w") as file:
            command = [sys.executable, "-m", "depthray", *arguments]
            self.process = subprocess.Popen(command, cwd=cwd, env=environment(), stdout=file, stderr=file)

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait(self, code: int) -> str:
        """Its complete output, once it has ended with this exit code."""
        hangs.until(lambda: self.process.poll() is not None, self.log.parent)
        assert self.process.returncode == code, self.output
        return self.output

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for an effect of the command while it runs."""

        def is_reached() -> bool:
            if condition():
                return True
            assert self.process.poll() is None, self.output
            return False

        hangs.until(is_reached, self.log.parent)


def printed_command(output: str, key: str) -> list[str]:
    """The arguments of the command in the line `key  command` of an output."""
    return shlex.split(re.findall(rf"^{key} +(.*)$", output, re.MULTILINE)[-1])


def records(run: Path) -> list[progress.Record]:
    path = run / progress.FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def epochs(run: Path) -> list[int]:
    return [record["epoch"] for record in records(run) if record["kind"] == "epoch"]


def test_a_job_is_stopped_with_a_checkpoint_and_resumed_by_the_printed_command(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, here = tmp_path / "run", tmp_path / "here"
    write_all(here)
    data = write_pairs(tmp_path / "data", scenes=10, frames=8, size=(32, 64))
    slow = tmp_path / "slow"
    slow.touch()
    loss = here / "mypkg" / "losses.py"
    wait = textwrap.indent(SLOWLY.format(mark=str(slow)), "    ")
    loss.write_text(loss.read_text().replace("    error = torch.where(", f"{wait}    error = torch.where(", 1))
    shutil.copy(ROOT / "depthray" / "recipes" / "demo.yaml", here / "mine.yaml")
    flags = ("--cpus-per-worker", "1", "--data", str(data), "--out", str(run), "--submit", head)
    job = Command(tmp_path / "first", "train", "mine.yaml", *OWN, *OVERRIDES, *flags, cwd=here)
    job.wait_until(lambda: bool(epochs(run)))
    subprocess.run(printed_command(job.output, "stop"), env=environment(), check=True, capture_output=True)
    output = job.wait(130)
    slow.unlink()
    assert "recipe/mine.yaml" in output
    written = records(run)
    assert "asked to stop" in str(written[-1].get("text")), written[-1]
    assert main(["runs", "list", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] == "stopped"
    log = output.splitlines()
    assert [line for line in log if line.startswith("epoch ")] == [
        console.line(record) for record in written if record["kind"] in ("interval", "epoch")
    ]
    assert "\r" not in output and "\x1b" not in output and TOKEN not in output
    saved = select.committed(run / "checkpoints")[-1]
    command = printed_command(output, "stopped +resume with:")
    assert command == printed_command(output, "resume")
    output = Command(tmp_path / "second", *command[1:], cwd=here).wait(0)
    assert f"resumed from {saved.name}" in output and epochs(run) == [1, 2, 3]
    assert list((run / "tensorboard").glob("events*"))
    assert {each.name for each in manifest.verify(select.resolve(run)).code} == NAMES

    forget(monkeypatch, here)  # another process, which has named nothing
    assert main(["evaluate", str(run)]) == 2
    assert "add --trust" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--trust", "--out", str(tmp_path / "scores")]) == 0
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["protocol"]["name"] == "near"
