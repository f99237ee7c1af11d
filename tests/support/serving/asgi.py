"""An ASGI client that sends paths, headers and bodies exactly as given, wrong ones included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

Headers = Sequence[tuple[str, str]]


class Reply(NamedTuple):
    """What came back. Names of headers are lower case."""

    status: int
    pairs: list[tuple[str, str]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.pairs)

    @property
    def kind(self) -> str:
        return self.headers.get("content-type", "")

    @property
    def tree(self) -> Any:
        return json.loads(self.body)


async def call(
    app: Any, method: str, path: str, *, body: bytes | Iterable[bytes | float | None] = b"", headers: Headers = ()
) -> Reply:
    """One request. A body in pieces arrives piece by piece; a number is a pause in seconds, None a lost connection."""
    raw_path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("latin1", "replace"),
        "query_string": query.encode("latin1", "replace"),
        "root_path": "",
        "headers": [(name.lower().encode("latin1"), value.encode("latin1", "replace")) for name, value in headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    pieces = iter([body] if isinstance(body, bytes) else body)
    sent: list[dict[str, Any]] = []
    ended: list[bool] = []

    async def receive() -> dict[str, Any]:
        for piece in pieces:
            if piece is None:
                return {"type": "http.disconnect"}
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                return {"type": "http.request", "body": piece, "more_body": True}
        if ended:
            await asyncio.Event().wait()  # the client listens
        ended.append(True)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    assert start["type"] == "http.response.start"
    pairs = [(name.decode("latin1").lower(), value.decode("latin1")) for name, value in start["headers"]]
    return Reply(start["status"], pairs, b"".join(message.get("body", b"") for message in sent[1:]))


def ask(app: Any, method: str, path: str, **words: Any) -> Reply:
    """`call` for those who do not wait."""
    return asyncio.run(call(app, method, path, **words))


def form(*parts: tuple[str, bytes], boundary: str = "----cut") -> tuple[bytes, Headers]:
    """Fields -> the body and the header of a form."""
    pieces = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in parts
    ]
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return body, [("Content-Type", f"multipart/form-data; boundary={boundary}")]
