"""HTTP load from a process of its own: a number of requests at a time (closed), or a fixed rate (open).

    python benchmarks/load.py URL FOLDER --clients 16 --seconds 10
    python benchmarks/load.py URL FOLDER --rate 40 --seconds 10

Sends the JPEG files of a folder in turn, or its .form files, bodies of multipart/form-data with the boundary BOUNDARY,
and prints one line of JSON: the answers, and the mean milliseconds of each stage that their headers Server-Timing have.
In the open form a request's time counts from when it was due, not from when there was a moment to send it: a server
that stalls cannot slow down its own measurement. Plain sockets under asyncio, answers parsed just far enough: about
0.2 ms of a core for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

LAST_ANSWER_SECONDS = 30.0  # seconds after the last request until the rest counts as lost
OK = 200
LOST = 0  # the status of a request without an answer
BOUNDARY = "depthray-benchmark"
FULL, AGAIN = 429, 1.0  # a client that was refused repeats its request after the seconds of Retry-After


@dataclass
class Tally:
    """The answers: (status, seconds since it was due, whether it has Retry-After, seconds since the start)."""

    answers: list[tuple[int, float, bool, float]] = field(default_factory=list)
    began: float = 0.0
    late: float = 0.0  # seconds by which the driver itself was behind, at worst
    faults: set[str] = field(default_factory=set)
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # milliseconds of all answers


class Connection(asyncio.BufferedProtocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, idle: deque[Connection], tally: Tally) -> None:
        self._idle, self._tally = idle, tally
        self._space = bytearray(1 << 18)  # as large as an answer, a 16-bit PNG of 640x480, usually is
        self._headers = b""
        self._left = -1  # bytes of the body that are missing; -1: still in the headers
        self._due = 0.0
        self._done: Callable[[], None] | None = None
        self._status, self._again, self._closes, self._timing = LOST, False, False, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        # Above any request: `send` never has to wait for the socket.
        transport.set_write_buffer_limits(high=1 << 22)  # type: ignore[attr-defined]

    def send(self, request: bytes, due: float, done: Callable[[], None]) -> None:
        """Send one request; `done` is called when it is over."""
        self._due, self._done, self._headers, self._left, self._status = due, done, b"", -1, LOST
        self.transport.write(request)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        if self._left >= 0:
            self._left -= nbytes  # a body is counted, not kept
        else:
            self._headers += self._space[:nbytes]
            end = self._headers.find(b"\r\n\r\n")
            if end < 0:
                return
            self._read_headers(self._headers[:end].lower())
            self._left -= len(self._headers) - end - 4
        if self._left <= 0:
            self._finish(self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closes = True
        if self in self._idle:
            self._idle.remove(self)
        self._tally.faults.add(f"connection lost: {exc}") if self._done else None
        self._finish(LOST)

    def _read_headers(self, headers: bytes) -> None:
        first, *lines = headers.split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines if b": " in line)
        self._status = int(first.split()[1])
        self._left = int(fields[b"content-length"])  # neither server sends chunks
        self._again = b"retry-after" in fields
        self._closes = fields.get(b"connection") == b"close"
        self._timing = fields.get(b"server-timing", b"")

    def _finish(self, status: int) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        now = time.perf_counter()
        self._tally.answers.append((status, now - self._due, self._again, now - self._tally.began))
        for stage in self._timing.split(b", ") if self._timing and status == OK else ():
            name, _, milliseconds = stage.partition(b";dur=")
            self._tally.stages[name.decode()] += float(milliseconds)
        if self._closes:
            self.transport.close()
        else:
            self._idle.append(self)
        done()


class Driver:
    """Sends requests over as many connections as it takes."""

    def __init__(self, url: str, bodies: Sequence[bytes], kind: str, tally: Tally) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {kind}\r\nContent-Length: "
        self._requests = [f"{headers}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._idle: deque[Connection] = deque()
        self._tally, self._number, self._opening = tally, 0, set[asyncio.Task[None]]()

    def ask(self, due: float, done: Callable[[], None]) -> None:
        """Send the next request, over a connection that is free or a new one."""
        request = self._requests[self._number % len(self._requests)]
        self._number += 1
        self._tally.late = max(self._tally.late, time.perf_counter() - due)
        if self._idle:
            self._idle.pop().send(request, due, done)
        else:
            task = asyncio.ensure_future(self._open(request, due, done))
            self._opening.add(task)  # the loop itself holds tasks only weakly
            task.add_done_callback(self._opening.discard)

    async def _open(self, request: bytes, due: float, done: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._idle, self._tally), self._host, self._port
            )
        except OSError as error:
            now = time.perf_counter()
            self._tally.answers.append((LOST, now - due, False, now - self._tally.began))
            self._tally.faults.add(f"cannot connect: {error}")
            done()
        else:
            connection.send(request, due, done)


async def closed(driver: Driver, tally: Tally, *, clients: int, seconds: float) -> None:
    """Each of so many clients sends its next request when the one before is answered, or in a second if refused."""
    over = asyncio.Event()
    running = clients
    end = tally.began + seconds

    loop = asyncio.get_running_loop()

    def ask() -> None:
        driver.ask(time.perf_counter(), again)

    def again() -> None:
        nonlocal running
        if time.perf_counter() < end:
            # The answer just counted is the last one: this is called right after it.
            loop.call_later(AGAIN if tally.answers[-1][0] == FULL else 0.0, ask)
        else:
            running -= 1
            if not running:
                over.set()

    for _ in range(clients):
        ask()
    await asyncio.wait_for(over.wait(), seconds + LAST_ANSWER_SECONDS)


async def opened(driver: Driver, tally: Tally, *, rate: float, seconds: float) -> None:
    """A request every 1/rate seconds."""
    total, back = math.ceil(rate * seconds), 0
    over = asyncio.Event()

    def one() -> None:
        nonlocal back
        back += 1
        if back == total:
            over.set()

    for number in range(total):
        due = tally.began + number / rate  # from the start, not from the request before: being late does not add up
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        driver.ask(due, one)
    await asyncio.wait_for(over.wait(), LAST_ANSWER_SECONDS)


def read_bodies(folder: Path) -> list[bytes]:
    """The bodies in a folder: forms if there are any, else photographs."""
    paths = sorted(folder.glob("*.form")) or sorted(folder.glob("*.jpg"))
    return [path.read_bytes() for path in paths]


async def drive(args: argparse.Namespace) -> Tally:
    """The answers of one window of load."""
    bodies = read_bodies(args.folder)
    kind = f"multipart/form-data; boundary={BOUNDARY}" if bodies[0].startswith(b"--") else "image/jpeg"
    tally = Tally(began=time.perf_counter())
    driver = Driver(args.url, bodies, kind, tally)
    try:
        if args.rate:
            await opened(driver, tally, rate=args.rate, seconds=args.seconds)
        else:
            await closed(driver, tally, clients=args.clients, seconds=args.seconds)
    except TimeoutError:
        tally.faults.add("some requests were never answered")
    return tally


def main() -> int:
    """Print the answers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    tally = uvloop.run(drive(args))
    report = {"answers": tally.answers, "late": tally.late, "faults": sorted(tally.faults)}
    answered = sum(status == OK for status, *_ in tally.answers)
    report["stages"] = {stage: total / answered for stage, total in tally.stages.items()}
    report["cpu"] = time.process_time()  # what the driver took of the cores that the server needs
    json.dump(report, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
