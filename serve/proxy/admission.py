"""At Serve's proxy: no more requests at a time than are answered soon; the rest is told at once to come again.

To refuse a request in the ingress costs a good part of answering it: its body goes from process to process first. Under
five times the load that can be answered, refusing would take half of the machine.
"""

from __future__ import annotations

import os
import time
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http import problems
from serve.http.gate import BUSY
from serve.settings import Settings

VARIABLE = "DEPTHRAY_SERVE_DOOR"
WEIGHT = 0.1  # of the newest answer in what is known of the others
SPARE = 2.0  # times the requests that make Serve start another replica are let in, while there may be more replicas


class Room:
    """How many requests there is room for: as many as are answered within the time wanted, by Little's law."""

    def __init__(self, *, seconds: float, least: int, most: int) -> None:
        self._seconds, self._least, self._most = seconds, min(least, most), most
        self._known = float(most)
        self.inside = 0

    @property
    def full(self) -> bool:
        """Whether another request would wait too long."""
        return self.inside >= max(self._least, min(self._most, round(self._known)))

    def learn(self, inside: int, seconds: float) -> None:
        """An answer took so long while so many were inside: at that rate, how many are answered in the time wanted?"""
        fit = min(float(self._most), inside * self._seconds / max(seconds, 1e-6))
        self._known += WEIGHT * (fit - self._known)


class Door:
    """ASGI middleware around Serve's proxy. What still arrives takes no place, so that slow senders keep nobody out."""

    def __init__(self, app: ASGIApp, *, room: Room) -> None:
        self._app, self._room = app, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        if self._room.full:
            return await _refuse(scope, receive, send)
        entered, among, status = 0.0, 0, 0

        async def receive_on() -> Message:
            nonlocal entered, among
            message = await receive()
            if not entered and message["type"] == "http.request" and not message.get("more_body"):
                self._room.inside += 1
                entered, among = time.monotonic(), self._room.inside
            return message

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive_on, send_on)
        finally:
            self._room.inside -= entered > 0
            if entered and status == 200:  # others say nothing about the time an answer takes
                self._room.learn(among, time.monotonic() - entered)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    request_id = Headers(scope=scope).get("x-request-id") or uuid4().hex
    response = problems.response(problems.Problem(429, BUSY, headers=problems.RETRY), request_id=request_id)
    response.headers["X-Request-ID"] = request_id
    await response(scope, receive, send)


def told(settings: Settings) -> str:
    """What a proxy finds in its environment, to have a door of these settings."""
    model = settings.model_replicas
    scales = model.max > model.min
    least = int(SPARE * model.ongoing * model.max) if scales else 2 * model.max
    return f"{settings.answer_seconds} {least} {settings.queued}"


def heard() -> Room | None:
    """The room that the environment speaks of."""
    if VARIABLE not in os.environ:
        return None
    seconds, least, most = os.environ[VARIABLE].split()
    return Room(seconds=float(seconds), least=int(least), most=int(most))
