"""Around every request: its id, headers every answer has, and a plain 500 for what nobody expected."""

from __future__ import annotations

import logging
import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.problems import FAULT, Problem, response

_LOG = logging.getLogger("depthray.serve")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def request_id(scope: Scope) -> str:
    """The id of a request: the client's or the proxy's if it is a plain word, otherwise a new one."""
    state: dict[str, str] = scope.setdefault("state", {})
    if "request_id" not in state:
        given = Headers(scope=scope).get("x-request-id", "")
        state["request_id"] = given if _ID.fullmatch(given) else uuid4().hex
    return state["request_id"]


class Envelope:
    """ASGI middleware. `name_ids`: answers carry X-Request-ID; Serve's proxy writes that header itself."""

    def __init__(self, app: ASGIApp, *, name_ids: bool) -> None:
        self._app = app
        self._name_ids = name_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._complete(scope, message)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception:
            _LOG.exception("request %s %s failed", request_id(scope), scope["path"][:200].encode("unicode_escape"))
            if started:
                raise
            await response(Problem(500, FAULT), request_id=request_id(scope))(scope, receive, send_on)

    def _complete(self, scope: Scope, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in _ALWAYS.items():
            headers.setdefault(name, value)
        if scope["path"].startswith("/v"):
            headers.setdefault("Cache-Control", "no-store")
        if self._name_ids:
            headers["X-Request-ID"] = request_id(scope)
