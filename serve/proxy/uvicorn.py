"""How much and how long a client may talk before its request begins: Serve's proxy reads heads without end otherwise.

A head that never ends would fill the memory of the proxy, and connections that never say anything its list of files,
before any code of ours is asked. The proxy calls `bounded` when it starts, as `depthray serve` tells it by the variable
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.proxy.uvicorn:bounded.
"""

from __future__ import annotations

import asyncio

import uvicorn.config
from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.proxy import admission

MOST = 64 * 2**10  # bytes of a head beyond which nothing more of it is read
PATIENCE = 30.0  # seconds for a head to arrive, the first of a connection or one that has begun


def bounded() -> list[Middleware]:
    """Have the server that is about to start read heads by these bounds, behind a door if one is asked for."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"
    room = admission.heard()
    return [Middleware(admission.Door, room=room)] if room else []


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Between requests uvicorn's own keep-alive counts the time."""

    _head = 0  # bytes received of a head that has not ended; -1 while there is none
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head < 0:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._head = -1
        self._stop_clock()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head >= 0 and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MOST:
                self._refuse()

    def _expect_head(self) -> None:
        self._head = 0
        self._clock = self.loop.call_later(PATIENCE, self._give_up)

    def _refuse(self) -> None:
        said = f"The head of the request is longer than {MOST} bytes.".encode()
        lines = ["HTTP/1.1 431 Request Header Fields Too Large", "content-type: text/plain; charset=utf-8"]
        lines += [f"content-length: {len(said)}", "connection: close", "", ""]
        self.transport.write("\r\n".join(lines).encode() + said)
        self.transport.close()

    def _give_up(self) -> None:
        self.transport.close()

    def _stop_clock(self) -> None:
        if self._clock:
            self._clock.cancel()
            self._clock = None
