"""Ordinary requests for minutes with hostile ones among them, and what the processes hold meanwhile."""

from __future__ import annotations

import importlib
import random
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from chaos.serving.clients import head
from chaos.serving.load import Load, failed, good, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import TITLES, Service, picture

SHARE = 0.01  # of the requests that are hostile
EVERY = 2.0  # seconds between two looks
SETTLED = 0.4  # of the time, after which caches and allocators should have what they want
GROWTH = 0.05  # of the memory in the time after that


class Held(NamedTuple):
    """What a process holds."""

    when: float
    megabytes: float
    files: int
    threads: int


def soak(sizes: Sizes) -> Iterator[Finding]:
    """One request in a hundred is hostile; memory, files and threads stay as they are."""
    with Service(sizes.port) as service:
        pids = {role: service.pids(role)[0] for role in TITLES}
        held: dict[str, list[Held]] = {role: [] for role in pids}
        with Load(service.port, picture(), clients=3) as load:
            load.wait(20)
            ended = threading.Event()
            hostile = threading.Thread(target=_harass, args=(service, load, ended))
            hostile.start()
            end = time.monotonic() + 60 * sizes.minutes
            while time.monotonic() < end:
                for role, pid in pids.items():
                    held[role].append(_held(pid))
                time.sleep(EVERY)
            ended.set()
            hostile.join()
        wrong = failed(load.outcomes)
        found = f"{len(wrong)} failed ({tally(load.outcomes)})"
        yield Finding("ordinary requests", "0 failed", found, not wrong and bool(good(load.outcomes)))
        for role, looks in held.items():
            yield _growth(role, looks)
        after = {role: service.pids(role)[0] for role in TITLES}
        yield Finding("processes that died", "none", "none" if after == pids else "some", after == pids)


def _growth(role: str, looks: list[Held]) -> Finding:
    """What a process holds more at the end than when it had settled."""
    later = looks[int(len(looks) * SETTLED) :]
    memory = [look.megabytes for look in later]
    times = [(look.when - later[0].when) / 3600 for look in later]
    slope = statistics.linear_regression(times, memory).slope
    rise = slope * times[-1] / memory[0]
    half = len(later) // 2
    files = max(look.files for look in later[half:]) - max(look.files for look in later[:half])
    threads = max(look.threads for look in later[half:]) - max(look.threads for look in later[:half])
    found = f"{memory[0]:.0f} to {memory[-1]:.0f} MB ({slope:+.0f} MB/h), {files:+d} files, {threads:+d} threads"
    expected = f"memory within {GROWTH:.0%}, files and threads as they were"
    return Finding(
        f"{role} in {times[-1] * 60:.0f} min", expected, found, rise <= GROWTH and files <= 4 and threads <= 2
    )


def _held(pid: int) -> Held:
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Held(time.monotonic(), int(values["VmRSS"].split()[0]) / 1024, files, int(values["Threads"]))


def _harass(service: Service, load: Load, ended: threading.Event) -> None:
    """So many hostile requests as make their share of all."""
    fuzz = importlib.import_module("harmed_bodies")
    chance, sent = random.Random(0), 0
    lines: list[socket.socket] = []
    while not ended.wait(0.05):
        if sent >= SHARE * len(load.outcomes):
            continue
        sent += 1
        kind, data = chance.choice(fuzz.SEEDS)
        body = fuzz.harmed(data, chance)
        with suppress(OSError):
            match chance.randrange(4):
                case 0:  # half an upload, its client gone
                    _begin(service.port, body).close()
                case 1:  # half an upload, its client waits
                    lines.append(_begin(service.port, body))
                case 2:  # no HTTP
                    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as line:
                        line.sendall(chance.randbytes(200))
                case _:
                    service.ask("/v1/depth", body, headers={"Content-Type": kind}, timeout=30)
        for line in lines[:-5]:
            line.close()
        del lines[:-5]


def _begin(port: int, body: bytes) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=5)
    line.sendall(head(f"Content-Length: {len(body) * 2}") + body)
    return line
