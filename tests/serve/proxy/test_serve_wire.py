"""The API behind the HTTP server that Serve's proxy uses, spoken to over a bare socket: what no library would send."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from serve_backend import app, encoded, scene

from serve.proxy import uvicorn as limits

PHOTO = encoded(scene())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The API on a free port of the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "HEADER_TIMEOUT", 1.0)
        patch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "")
        assert limits.limit_headers() == []
        api = app(limits={"body_bytes": 100_000, "upload_seconds": 0.5})
        server = uvicorn.Server(uvicorn.Config(api, log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/depth HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def talk(port: int, *pieces: bytes | float, answers: int = 1) -> bytes:
    """Send pieces with pauses in between, and read until so many answers have ended or the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        for piece in pieces:
            if isinstance(piece, float):
                time.sleep(piece)
            else:
                with contextlib.suppress(ConnectionError):  # refused before all was sent
                    line.sendall(piece)
        return _receive(line, answers)


def _receive(line: socket.socket, answers: int) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while received.count(b"IEND\xaeB`\x82") + received.count(b'"}') < answers and (piece := line.recv(65_536)):
            received += piece
    return received


def test_a_body_in_chunks(port: int) -> None:
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(PHOTO[at : at + 97]), PHOTO[at : at + 97]) for at in range(0, len(PHOTO), 97)
    )
    assert talk(port, head("Transfer-Encoding: chunked"), chunks, b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_chunks_without_end(port: int) -> None:
    piece = b"10000\r\n" + bytes(65_536) + b"\r\n"
    assert talk(port, head("Transfer-Encoding: chunked"), *[piece] * 3).startswith(b"HTTP/1.1 413")


def test_a_client_that_expects_a_go_ahead(port: int) -> None:
    request = head(f"Content-Length: {len(PHOTO)}", "Expect: 100-continue")
    received = talk(port, request, 0.2, PHOTO)
    assert received.startswith(b"HTTP/1.1 100") and b"HTTP/1.1 200" in received
    # Too large: refused at once, so that nothing is sent.
    assert talk(port, head("Content-Length: 9999999", "Expect: 100-continue")).startswith(b"HTTP/1.1 413")


def test_headers_without_end(port: int) -> None:
    beginning = b"POST /v1/depth HTTP/1.1\r\nHost: x\r\n"
    for piece in (b"X: " + b"y" * 20_000, (b"X: " + b"y" * 96 + b"\r\n") * 200):
        assert talk(port, beginning, *[piece] * 10).startswith(b"HTTP/1.1 431")
    assert talk(port, *[head(f"Content-Length: {len(PHOTO)}") + PHOTO] * 20, answers=20).count(b"HTTP/1.1 200") == 20


@pytest.mark.parametrize("sent", [b"", b"POST /v1/depth HTTP/1.1\r\nX:"])
def test_headers_that_never_come(port: int, sent: bytes) -> None:
    start = time.perf_counter()
    assert talk(port, sent) == b""
    assert 0.5 < time.perf_counter() - start < 5
    assert talk(port, head(f"Content-Length: {len(PHOTO)}"), PHOTO).startswith(b"HTTP/1.1 200")


def test_several_requests_on_a_line(port: int) -> None:
    one = head(f"Content-Length: {len(PHOTO)}") + PHOTO
    assert talk(port, one * 3, answers=3).count(b"HTTP/1.1 200") == 3


def test_a_byte_now_and_then(port: int) -> None:
    pieces = [piece for byte in PHOTO[:8] for piece in (bytes([byte]), 0.1)]
    start = time.perf_counter()
    assert talk(port, head(f"Content-Length: {len(PHOTO)}"), *pieces).startswith(b"HTTP/1.1 408")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("sent", [b"", b"POST", head("Content-Length: 500") + b"x", head("Content-Length: 5")])
def test_clients_that_hang_up(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(sent)
    assert talk(port, head(f"Content-Length: {len(PHOTO)}") + PHOTO).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
        b"GET\r\n\r\n",
        head("Content-Length: 5", "Content-Length: 6") + b"hello",
        head("X: " + "y" * 200_000),
        head("Transfer-Encoding: chunked") + b"zz\r\n",
    ],
)
def test_what_is_not_http(port: int, sent: bytes) -> None:
    received = talk(port, sent)
    assert received == b"" or received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert talk(port, head(f"Content-Length: {len(PHOTO)}") + PHOTO).startswith(b"HTTP/1.1 200")
