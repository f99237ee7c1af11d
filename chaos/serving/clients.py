"""Clients that break the rules, at the real proxy: slow, gone too early, too many at once, or not speaking HTTP."""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
from collections.abc import Callable, Iterator

from chaos.serving.load import Load, failed, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import TITLES, Service, png_image

QUEUED = 16
CROWD = 3 * QUEUED  # clients that leave or stay at a time: more than may be answered at once


def clients(sizes: Sizes) -> Iterator[Finding]:
    """Hostile ways to speak HTTP, each with the answer it should get, and without harm to other clients."""
    # Faults, though none at first: `_crowd` makes forward passes slow.
    with Service(sizes.port, f"queued={QUEUED}", "limits.body_bytes=1000000", faults={}) as service:
        service.request(body=png_image())  # answered: all processes are up before their ids are noted
        before = {role: service.pids(role) for role in TITLES}
        for what, expected, pieces in _exchanges():
            received = _statuses(exchange(service.port, *pieces, answers=len(expected)))
            good = received in (expected, _closed(expected))
            yield Finding(what, _format_statuses(expected), _format_statuses(received), good)
        yield _crowd(service, "uploads that stop half-way, their clients gone", _leave_half_way)
        yield _crowd(service, "clients gone while their image is computed", _leave_early, pause=1.0)
        yield _crowd(service, "uploads of a byte a second", _send_slowly)
        yield _crowd(service, "connections that send nothing", _send_nothing)
        after = {role: service.pids(role) for role in TITLES}
        yield Finding("processes that died", "none", str(_changed(before, after) or "none"), before == after)


def header(*lines: str, method: str = "POST", path: str = "/v1/depth") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def _exchanges() -> Iterator[tuple[str, list[int], list[bytes | float]]]:
    """A description, the statuses of the answers, and what is sent, with pauses in seconds."""
    body = png_image()
    length = f"Content-Length: {len(body)}"
    request = header(length) + body
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 97]), body[at : at + 97]) for at in range(0, len(body), 97))
    large = b"20000\r\n" + bytes(0x20000) + b"\r\n"
    compressed = gzip.compress(body)
    yield "three pipelined requests", [200] * 3, [request * 3]
    yield "a chunked body", [200], [header("Transfer-Encoding: chunked"), chunks, b"0\r\n\r\n"]
    yield "Expect: 100-continue", [100, 200], [header(length, "Expect: 100-continue"), 0.5, body]
    yield "chunks beyond the limit", [413], [header("Transfer-Encoding: chunked"), *[large] * 10, b"0\r\n\r\n"]
    yield "Content-Length beyond the limit", [413], [header("Content-Length: 9999999")]
    slowly: list[bytes | float] = [piece for byte in body[:8] for piece in (bytes([byte]), 1.0)]
    yield "a byte a second", [408], [header(length), *slowly]
    yield "less than Content-Length says", [408], [header(f"Content-Length: {len(body) + 5}") + body]
    encoded = header(f"Content-Length: {len(compressed)}", "Content-Encoding: gzip")
    yield "a compressed body", [415], [encoded + compressed]
    yield "a query of a megabyte", [431], [header(length, path="/v1/depth?x=" + "y" * 1_000_000) + body]
    yield "a header of a megabyte", [431], [header(length, "X: " + "y" * 1_000_000) + body]
    yield "two Content-Length headers", [400], [header("Content-Length: 5", "Content-Length: 6") + b"hello"]
    both = header("Content-Length: 5", "Transfer-Encoding: chunked")
    yield "Content-Length and chunks", [400], [both + b"0\r\n\r\n"]
    yield "a chunk without a size", [400], [header("Transfer-Encoding: chunked") + b"zz\r\n"]
    yield "TLS", [400], [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n"]
    yield "no HTTP", [400], [b"hello\r\n\r\n"]
    yield "a path outside the page", [404], [header(method="GET", path="/page/../../etc/passwd")]
    yield "another method", [405], [header(method="DELETE")]


def exchange(port: int, *pieces: bytes | float, answers: int = 1) -> bytes:
    """Send pieces with pauses between, and read until all answers have come or the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # refused before all was sent
            for piece in pieces:
                if isinstance(piece, float):
                    time.sleep(piece)
                else:
                    connection.sendall(piece)
        received = b""
        with contextlib.suppress(OSError):
            connection.settimeout(30)
            while len(_statuses(received)) < answers and (piece := connection.recv(65_536)):
                received += piece
        return received


def _statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def _closed(expected: list[int]) -> list[int]:
    """What is right as well: to close the connection where the request is no HTTP."""
    return [] if expected in ([400], [431]) else expected


def _format_statuses(statuses: list[int]) -> str:
    return ", ".join(map(str, statuses)) or "closed"


def _crowd(
    service: Service, what: str, connect: Callable[[int], socket.socket | None], *, pause: float = 0.0
) -> Finding:
    """Many of a kind connect, one after the other, while others send requests as usual."""
    service.inject(pause=pause)
    with Load(service.port, png_image(), clients=2) as load:
        load.wait(5)
        connections = [connect(service.port) for _ in range(CROWD)]
        load.wait(5)
        service.inject()
        time.sleep(1)
        load.wait(20)
        status = service.request(body=png_image()).status
    for connection in filter(None, connections):
        connection.close()
    observed = f"others {tally(load.outcomes)}, one afterwards {status}"
    return Finding(f"{CROWD} {what}", "others 200", observed, not failed(load.outcomes) and status == 200)


def _leave_half_way(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(header("Content-Length: 5000") + bytes(1000))


def _leave_early(port: int) -> None:
    body = png_image()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(header(f"Content-Length: {len(body)}") + body)
        time.sleep(0.05)  # long enough for the request to be received whole


def _send_slowly(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(header("Content-Length: 5000") + b"x")
    return connection


def _send_nothing(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def _changed(before: dict[str, list[int]], after: dict[str, list[int]]) -> str:
    return ", ".join(role for role in before if before[role] != after[role])
