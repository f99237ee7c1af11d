"""Servers under measurement: started, waited for, ended, and what they and everybody else take of the processor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START = 240.0  # seconds a server may take until it answers
END = 60.0  # seconds it may take to go


def free_port() -> int:
    """A port nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], request: urllib.request.Request, *, log: Path, **environment: str) -> Iterator[int]:
    """The pid of a server that answers a request; ended with SIGTERM, on which both servers stop."""
    with log.open("ab") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
    try:
        _wait(server, request, log)
        yield server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(END)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait(server: subprocess.Popen[bytes], request: urllib.request.Request, log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"process {server.pid} does not answer; see {log}")


class Usage(NamedTuple):
    """Seconds of processor time since something."""

    by_title: dict[str, float]  # of the processes of a tree
    machine: float  # of everything, the kernel included

    @property
    def tree(self) -> float:
        """Of the tree as a whole."""
        return sum(self.by_title.values())

    def since(self, before: Usage) -> Usage:
        """What was added."""
        added = {title: seconds - before.by_title.get(title, 0.0) for title, seconds in self.by_title.items()}
        return Usage(added, self.machine - before.machine)


def usage(pid: int) -> Usage:
    """What a process and all it has started have used, by their titles."""
    by_title: dict[str, float] = {}
    for each in _tree(pid):
        try:
            # Ray's actors have a title in place of their command line.
            title = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")[0].decode()
            key = title if title.startswith("ray::") else Path(title).name
            by_title[_plain(key)] = by_title.get(_plain(key), 0.0) + _seconds(each)
        except OSError:
            continue
    fields = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    # User, nice, system, irq, softirq, steal: all but idle and waiting for a disk.
    busy = sum(map(int, (*fields[:3], *fields[5:8]))) / os.sysconf("SC_CLK_TCK")
    return Usage(by_title, busy)


def _plain(title: str) -> str:
    """Without the method an actor happens to run."""
    return title.removeprefix("ray::").partition(".")[0].removeprefix("ServeReplica:depth:")


def _seconds(pid: int) -> float:
    """Of the threads of a process, from the scheduler, which counts finer than the clock ticks of stat."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return total / 1e9  # nanoseconds


def _tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # From the last bracket on: the name before it may hold spaces and brackets.
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))  # state and parent are the first two
    pids, left = [], [pid]
    while left:
        pids.append(left.pop())
        left += children.get(pids[-1], [])
    return pids
