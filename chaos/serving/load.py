"""Load on a service: requests from a thread of its own, on kept connections, each with its outcome."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

RETRY = 0.1  # seconds until a client whose connection failed tries again
ANSWER_SECONDS = 90.0  # that a client waits for one answer


class Outcome(NamedTuple):
    """A request: when it was sent (time.monotonic), how long it took, and its status, 0 without an answer."""

    began: float
    seconds: float
    status: int
    fault: str = ""  # "refused": nobody listened; "lost": the connection broke after the request was sent
    model: str = ""

    @property
    def ended(self) -> float:
        return self.began + self.seconds

    @property
    def label(self) -> str:
        """Its fault or status, by which outcomes are counted."""
        return self.fault or str(self.status)


class Load:
    """`clients` that each send the next request once they are answered, or `rate` requests a second regardless."""

    def __init__(self, port: int, body: bytes, *, clients: int = 4, rate: float = 0.0, most: int = 500) -> None:
        self.port, self.body, self.clients, self.rate, self.most = port, body, clients, rate, most
        self.outcomes: list[Outcome] = []
        self.unsent = 0  # of a rate, when `most` requests were ongoing already
        self._ended = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join(ANSWER_SECONDS + 10)

    def wait(self, answers: int, seconds: float = 120.0) -> None:
        """Wait until so many more requests have succeeded."""
        target = len(good(self.outcomes)) + answers
        deadline = time.monotonic() + seconds
        while len(good(self.outcomes)) < target:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {answers} answers within {seconds:g} s; so far {tally(self.outcomes)}")
            time.sleep(0.05)

    async def _run(self) -> None:
        if self.rate:
            await self._at_rate()
            return
        tasks: list[asyncio.Task[None]] = []
        while not self._ended:
            tasks += [asyncio.create_task(self._client(number)) for number in range(len(tasks), self.clients)]
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)

    async def _client(self, number: int) -> None:
        connection = _Connection(self.port)
        while not self._ended:
            if number >= self.clients:  # `clients` may be changed while it runs
                await asyncio.sleep(0.05)
                continue
            outcome = await connection.request(self.body)
            self.outcomes.append(outcome)
            if outcome.fault or outcome.status == 503:  # else a dead service would be asked thousands of times a second
                await asyncio.sleep(RETRY)
        connection.close()

    async def _at_rate(self) -> None:
        idle: list[_Connection] = []
        ongoing: set[asyncio.Task[None]] = set()
        began, sent = time.monotonic(), 0
        while not self._ended:
            # By the clock, so that a late turn of the loop sends all that is due.
            due = int((time.monotonic() - began) * self.rate) - sent
            sent += due
            for _ in range(due):
                if len(ongoing) >= self.most:
                    self.unsent += 1
                    continue
                task = asyncio.create_task(self._one(idle))
                ongoing.add(task)
                task.add_done_callback(ongoing.discard)
            await asyncio.sleep(0.005)
        await asyncio.gather(*ongoing)

    async def _one(self, idle: list[_Connection]) -> None:
        connection = idle.pop() if idle else _Connection(self.port)
        self.outcomes.append(await connection.request(self.body))
        idle.append(connection)


class _Connection:
    """A connection that is kept as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, body: bytes) -> Outcome:
        began = time.monotonic()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return Outcome(began, time.monotonic() - began, 0, "refused")
        reader, writer = self._streams
        header = f"POST /v1/depth?format=npy HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(header.encode() + body)
                status, headers = await _answer(reader)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            late = isinstance(error, TimeoutError)
            return Outcome(began, time.monotonic() - began, 0, "no answer" if late else "lost")
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Outcome(began, time.monotonic() - began, status, "", headers.get("x-model", ""))

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read one answer: its status and headers."""
    header = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    pairs = (line.partition(":") for line in header[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    else:
        # Chunked; each chunk ends with a line end, and the last one is empty.
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(header[0].split()[1]), headers


def good(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [each for each in outcomes if each.status == 200]


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [each for each in outcomes if each.status != 200]


def tally(outcomes: Sequence[Outcome]) -> str:
    """How many of each kind: `200: 512, lost: 3`."""
    return ", ".join(f"{label}: {count}" for label, count in sorted(Counter(each.label for each in outcomes).items()))


def recovery(outcomes: Sequence[Outcome], at: float) -> float:
    """Seconds from an event to the end of the last failure after it; 0 without any."""
    return max((each.ended - at for each in failed(outcomes) if each.ended > at), default=0.0)


def longest_gap(outcomes: Sequence[Outcome], at: float) -> float:
    """The longest time between two successes after an event, in seconds."""
    ends = sorted([at, *(each.ended for each in good(outcomes) if each.ended > at)])
    return max((after - before for before, after in itertools.pairwise(ends)), default=float("inf"))


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
