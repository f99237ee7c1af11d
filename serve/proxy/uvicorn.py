"""Limits of size and time on the headers of a request, of which Serve's proxy reads any number otherwise.

Headers without end would fill the memory of the proxy, and connections that never send anything its table of open
files, before any other limit applies. The proxy calls `limit_headers` when it starts, as `depthray serve` sets
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.proxy.uvicorn:limit_headers. Behind a reverse proxy with limits of its
own this is not needed.
"""

from __future__ import annotations

import asyncio

import uvicorn.config
from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.proxy import admission

MAX_HEADER_BYTES = 64 * 2**10  # beyond which nothing more of them is read
HEADER_TIMEOUT = 30.0  # seconds for headers to arrive, of the first request of a connection or of one that has begun


def limit_headers() -> list[Middleware]:
    """Have the server that is about to start limit headers. Returns admission control, if the environment has it."""
    # Serve creates its uvicorn.Config itself and takes no protocol class, but resolves "auto" by this table.
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{HeaderLimitProtocol.__name__}"
    capacity = admission.capacity_from_environment()
    return [Middleware(admission.AdmissionControl, capacity=capacity)] if capacity else []


class HeaderLimitProtocol(HttpToolsProtocol):
    """One connection. Between requests uvicorn's own keep-alive timeout applies."""

    _received = 0  # bytes of headers that have not ended; -1 while a body or nothing is expected
    _timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timeout()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._received < 0:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        self._received = -1
        self._cancel_timeout()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # After parsing: headers that ended within this piece do not count any more.
        if self._received >= 0 and not self.transport.is_closing():
            self._received += len(data)
            if self._received > MAX_HEADER_BYTES:
                self._refuse()

    def _expect_headers(self) -> None:
        self._received = 0
        self._timeout = self.loop.call_later(HEADER_TIMEOUT, self._close)

    def _refuse(self) -> None:
        # Written by hand, as there is no complete request yet that the application could answer.
        text = f"The headers of the request are longer than {MAX_HEADER_BYTES} bytes.".encode()
        lines = ["HTTP/1.1 431 Request Header Fields Too Large", "content-type: text/plain; charset=utf-8"]
        lines += [f"content-length: {len(text)}", "connection: close", "", ""]
        self.transport.write("\r\n".join(lines).encode() + text)
        self.transport.close()

    def _close(self) -> None:
        self.transport.close()

    def _cancel_timeout(self) -> None:
        if self._timeout:
            self._timeout.cancel()
            self._timeout = None
