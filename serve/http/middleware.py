"""ASGI middlewares: request ids and common headers, and a limit of concurrent requests that also ends the service."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.problems import INTERNAL_ERROR, RETRY_HEADERS, Problem, response

TOO_MANY_REQUESTS = "too many requests are being answered; try again later"
_LOG = logging.getLogger("ray.serve")  # what Serve writes to the log of a replica
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # ids go into the log and into headers: nothing that could forge a line there
_COMMON_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def request_id(scope: Scope) -> str:
    """The id of a request: that of the client or the proxy if it is well-formed, otherwise a new one."""
    state: dict[str, str] = scope.setdefault("state", {})
    if "request_id" not in state:
        given = Headers(scope=scope).get("x-request-id", "")
        state["request_id"] = given if _ID.fullmatch(given) else uuid4().hex
    return state["request_id"]


def on_body_received(receive: Receive, call: Callable[[], None]) -> Receive:
    """`receive` that calls `call` once the body is complete, so that slow uploads do not count as ongoing requests."""
    is_complete = False

    async def receive_on() -> Message:
        nonlocal is_complete
        message = await receive()
        if not is_complete and message["type"] == "http.request" and not message.get("more_body"):
            call()
            is_complete = True
        return message

    return receive_on


class RequestIdMiddleware:
    """Logs and answers what nobody caught, by the request's id, and adds the headers that every answer has.

    `send_id`: answers carry X-Request-ID. Off behind Serve's proxy, which writes that header itself.
    """

    def __init__(self, app: ASGIApp, *, send_id: bool) -> None:
        self._app = app
        self._send_id = send_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        has_started = False

        async def send_on(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                self._add_headers(scope, message)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception:
            # Escaped, as a line end in the path could forge a line of the log.
            _LOG.exception("request %s %s failed", request_id(scope), scope["path"][:200].encode("unicode_escape"))
            if has_started:  # the status is sent already: only a broken connection shows that the answer is incomplete
                raise
            await response(Problem(500, INTERNAL_ERROR), request_id=request_id(scope))(scope, receive, send_on)

    def _add_headers(self, scope: Scope, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in _COMMON_HEADERS.items():
            headers.setdefault(name, value)
        if scope["path"].startswith("/v"):  # the API; pages set it themselves
            headers.setdefault("Cache-Control", "no-store")
        if self._send_id:
            headers["X-Request-ID"] = request_id(scope)


class ConcurrencyLimit:
    """Refuses requests beyond `max_requests` at a time, counted once their bodies are complete; once closed, all.

    A body that still arrives does not count, so that slow senders keep nobody out.
    """

    def __init__(self, app: ASGIApp, *, max_requests: int) -> None:
        self._app, self._max_requests = app, max_requests
        self._ongoing = self._unanswered = 0
        self._is_closed = False

    def close(self) -> int:
        """Refuse new requests. Returns how many earlier ones are still to be answered."""
        self._is_closed = True
        return self._unanswered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":  # health and pages cost nothing
            return await self._app(scope, receive, send)
        is_counted, is_admitted = False, not self._is_closed

        def start() -> None:
            nonlocal is_counted
            self._refuse_when_full()
            is_counted = True
            self._ongoing += 1

        receive_body = on_body_received(receive, start)

        async def receive_on() -> Message:
            # Raised from here, inside the API, a refusal gets the headers and the id of any other problem.
            if not is_admitted:
                raise Problem(503, "this server is shutting down; try again later", headers=RETRY_HEADERS)
            if not is_counted:
                self._refuse_when_full()
            return await receive_body()

        self._unanswered += is_admitted
        try:
            await self._app(scope, receive_on, send)
        finally:
            self._unanswered -= is_admitted
            self._ongoing -= is_counted

    def _refuse_when_full(self) -> None:
        if self._ongoing >= self._max_requests:
            raise Problem(429, TOO_MANY_REQUESTS, headers=RETRY_HEADERS)
