"""Ordinary requests for minutes with hostile ones among them, and what the processes use meanwhile."""

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

from chaos.serving.clients import header
from chaos.serving.load import Load, failed, good, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import TITLES, Service, png_image

SHARE = 0.01  # of the requests that are hostile
SAMPLE_SECONDS = 2.0  # between two samples of what processes use
WARM_UP = 0.4  # of the time, after which caches and allocators should have reached their size
GROWTH = 0.05  # of the memory in the time after that


class Usage(NamedTuple):
    """What a process uses."""

    when: float
    megabytes: float
    files: int
    threads: int


def soak(sizes: Sizes) -> Iterator[Finding]:
    """One request in a hundred is hostile; memory, files and threads stay as they are."""
    with Service(sizes.port) as service:
        pids = {role: service.pids(role)[0] for role in TITLES}
        usage: dict[str, list[Usage]] = {role: [] for role in pids}
        with Load(service.port, png_image(), clients=3) as load:
            load.wait(20)
            ended = threading.Event()
            hostile = threading.Thread(target=_send_hostile_requests, args=(service, load, ended))
            hostile.start()
            end = time.monotonic() + 60 * sizes.minutes
            while time.monotonic() < end:
                for role, pid in pids.items():
                    usage[role].append(_read_usage(pid))
                time.sleep(SAMPLE_SECONDS)
            ended.set()
            hostile.join()
        wrong = failed(load.outcomes)
        observed = f"{len(wrong)} failed ({tally(load.outcomes)})"
        yield Finding("ordinary requests", "0 failed", observed, not wrong and bool(good(load.outcomes)))
        for role, samples in usage.items():
            yield _growth(role, samples)
        after = {role: service.pids(role)[0] for role in TITLES}
        yield Finding("processes that died", "none", "none" if after == pids else "some", after == pids)


def _growth(role: str, samples: list[Usage]) -> Finding:
    """What a process uses more at the end than after its warm-up."""
    later = samples[int(len(samples) * WARM_UP) :]
    memory = [sample.megabytes for sample in later]
    times = [(sample.when - later[0].when) / 3600 for sample in later]
    slope = statistics.linear_regression(times, memory).slope
    rise = slope * times[-1] / memory[0]
    half = len(later) // 2
    # Maxima of both halves, as single samples vary with the requests of the moment.
    files = max(sample.files for sample in later[half:]) - max(sample.files for sample in later[:half])
    threads = max(sample.threads for sample in later[half:]) - max(sample.threads for sample in later[:half])
    observed = f"{memory[0]:.0f} to {memory[-1]:.0f} MB ({slope:+.0f} MB/h), {files:+d} files, {threads:+d} threads"
    expected = f"memory within {GROWTH:.0%}, files and threads as they were"
    return Finding(
        f"{role} in {times[-1] * 60:.0f} min", expected, observed, rise <= GROWTH and files <= 4 and threads <= 2
    )


def _read_usage(pid: int) -> Usage:
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Usage(time.monotonic(), int(values["VmRSS"].split()[0]) / 1024, files, int(values["Threads"]))


def _send_hostile_requests(service: Service, load: Load, ended: threading.Event) -> None:
    """Send as many hostile requests as make up their share of all."""
    fuzz = importlib.import_module("harmed_bodies")
    rng, sent = random.Random(0), 0
    connections: list[socket.socket] = []
    while not ended.wait(0.05):
        if sent >= SHARE * len(load.outcomes):
            continue
        sent += 1
        kind, data = rng.choice(fuzz.SEEDS)
        body = fuzz.harmed(data, rng)
        with suppress(OSError):
            match rng.randrange(4):
                case 0:  # half an upload, its client gone
                    _begin(service.port, body).close()
                case 1:  # half an upload, its client waits
                    connections.append(_begin(service.port, body))
                case 2:  # no HTTP
                    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
                        connection.sendall(rng.randbytes(200))
                case _:
                    service.request("/v1/depth", body, headers={"Content-Type": kind}, timeout=30)
        for connection in connections[:-5]:
            connection.close()
        del connections[:-5]


def _begin(port: int, body: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(header(f"Content-Length: {len(body) * 2}") + body)
    return connection
