"""No more requests at a time than can be answered soon; others are told at once to come again."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.problems import RETRY, Problem

BUSY = "too many requests are being answered; come again"


class Gate:
    """ASGI middleware around the API: lets in so many requests with a body, counted from when it has arrived in whole.

    What still arrives takes no place, so that slow senders keep nobody out. A closed gate lets nobody in.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app, self._most = app, most
        self._inside = self._unanswered = 0
        self._closed = False

    def close(self) -> int:
        """Take nothing new. Returns how many requests that came before are still to be answered."""
        self._closed = True
        return self._unanswered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        entered, admitted = False, not self._closed

        async def receive_on() -> Message:
            nonlocal entered
            if not admitted:
                raise Problem(503, "this server is shutting down; come again", headers=RETRY)
            if not entered:
                self._refuse_when_full()
            message = await receive()
            if not entered and message["type"] == "http.request" and not message.get("more_body"):
                self._refuse_when_full()
                entered = True
                self._inside += 1
            return message

        self._unanswered += admitted
        try:
            await self._app(scope, receive_on, send)
        finally:
            self._unanswered -= admitted
            self._inside -= entered

    def _refuse_when_full(self) -> None:
        """A Problem (429), which the API answers as it does its own."""
        if self._inside >= self._most:
            raise Problem(429, BUSY, headers=RETRY)
