"""Clients without manners before the real proxy: slow, gone, too early, too many at once, or speaking no HTTP."""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
from collections.abc import Callable, Iterator

from chaos.serving.load import Load, failed, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import TITLES, Service, picture

QUEUED = 16
CROWD = 3 * QUEUED  # clients that leave or linger at a time: more than may be answered at once
UPLOAD = 5.0  # limits.upload_seconds of the services here


def clients(sizes: Sizes) -> Iterator[Finding]:
    """Hostile ways to speak HTTP, each with the answer it should have, and nobody else the worse for it."""
    with Service(sizes.port, f"queued={QUEUED}", "limits.body_bytes=1000000", faults={}) as service:
        service.ask(body=picture())
        before = {role: service.pids(role) for role in TITLES}
        for what, expected, pieces in _talks():
            heard = _statuses(talk(service.port, *pieces, answers=len(expected)))
            yield Finding(what, _told(expected), _told(heard), heard in (expected, _closed(expected)))
        yield _crowd(service, "uploads that stop half-way, their clients gone", _leave_half_way)
        yield _crowd(service, "clients gone while their picture is computed", _leave_early, pause=1.0)
        yield _crowd(service, "uploads of a byte a second", _dawdle)
        yield _crowd(service, "connections that never say anything", _keep_silent)
        after = {role: service.pids(role) for role in TITLES}
        yield Finding("processes that died", "none", str(_changed(before, after) or "none"), before == after)


def head(*lines: str, method: str = "POST", path: str = "/v1/depth") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def _talks() -> Iterator[tuple[str, list[int], list[bytes | float]]]:
    """What it is, the statuses of its answers, and what is sent, with pauses in seconds."""
    body = picture()
    length = f"Content-Length: {len(body)}"
    whole = head(length) + body
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 97]), body[at : at + 97]) for at in range(0, len(body), 97))
    large = b"20000\r\n" + bytes(0x20000) + b"\r\n"
    packed = gzip.compress(body)
    yield "three requests at once on a line", [200] * 3, [whole * 3]
    yield "a body in chunks", [200], [head("Transfer-Encoding: chunked"), chunks, b"0\r\n\r\n"]
    yield "Expect: 100-continue", [100, 200], [head(length, "Expect: 100-continue"), 0.5, body]
    yield "chunks beyond the limit", [413], [head("Transfer-Encoding: chunked"), *[large] * 10, b"0\r\n\r\n"]
    yield "Content-Length beyond the limit", [413], [head("Content-Length: 9999999")]
    yield "a byte a second", [408], [head(length), *[piece for byte in body[:8] for piece in (bytes([byte]), 1.0)]]
    yield "less than Content-Length says", [408], [head(f"Content-Length: {len(body) + 5}") + body]
    encoded = head(f"Content-Length: {len(packed)}", "Content-Encoding: gzip")
    yield "a packed body", [415], [encoded + packed]
    yield "a query of a megabyte", [431], [head(length, path="/v1/depth?x=" + "y" * 1_000_000) + body]
    yield "a header of a megabyte", [431], [head(length, "X: " + "y" * 1_000_000) + body]
    yield "two lengths", [400], [head("Content-Length: 5", "Content-Length: 6") + b"hello"]
    yield "a length and chunks", [400], [head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n"]
    yield "a chunk of no size", [400], [head("Transfer-Encoding: chunked") + b"zz\r\n"]
    yield "TLS", [400], [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n"]
    yield "no HTTP", [400], [b"hello\r\n\r\n"]
    yield "a path out of the page", [404], [head(method="GET", path="/page/../../etc/passwd")]
    yield "another method", [405], [head(method="DELETE")]


def talk(port: int, *pieces: bytes | float, answers: int = 1) -> bytes:
    """Send pieces with pauses between, and read until so many answers have come or the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        with contextlib.suppress(ConnectionError):  # refused before all was sent
            for piece in pieces:
                if isinstance(piece, float):
                    time.sleep(piece)
                else:
                    line.sendall(piece)
        heard = b""
        with contextlib.suppress(OSError):
            line.settimeout(30)
            while len(_statuses(heard)) < answers and (piece := line.recv(65_536)):
                heard += piece
        return heard


def _statuses(heard: bytes) -> list[int]:
    return [int(part[:3]) for part in heard.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def _closed(expected: list[int]) -> list[int]:
    """What else is right: to hang up on what is no HTTP."""
    return [] if expected in ([400], [431]) else expected


def _told(statuses: list[int]) -> str:
    return ", ".join(map(str, statuses)) or "hung up"


def _crowd(service: Service, what: str, come: Callable[[int], socket.socket | None], *, pause: float = 0.0) -> Finding:
    """Many of a kind come, one after the other, while others ask as usual."""
    service.order(pause=pause)
    with Load(service.port, picture(), clients=2) as load:
        load.wait(5)
        lines = [come(service.port) for _ in range(CROWD)]
        load.wait(5)
        service.order()
        time.sleep(1)
        load.wait(20)
        status = service.ask(body=picture()).status
    for line in filter(None, lines):
        line.close()
    found = f"others {tally(load.outcomes)}, one afterwards {status}"
    return Finding(f"{CROWD} {what}", "others 200", found, not failed(load.outcomes) and status == 200)


def _leave_half_way(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(head("Content-Length: 5000") + bytes(1000))


def _leave_early(port: int) -> None:
    body = picture()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(head(f"Content-Length: {len(body)}") + body)
        time.sleep(0.05)


def _dawdle(port: int) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=10)
    line.sendall(head("Content-Length: 5000") + b"x")
    return line


def _keep_silent(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def _changed(before: dict[str, list[int]], after: dict[str, list[int]]) -> str:
    return ", ".join(role for role in before if before[role] != after[role])
