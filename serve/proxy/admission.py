"""Admission control at Serve's proxy: a request that would have to wait too long gets 429 before anything is done.

To refuse a request in the ingress costs a good part of answering it: its body goes from process to process first. Under
five times the load that can be answered, refusing would take half of the machine.
"""

from __future__ import annotations

import os
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http import problems
from serve.http.middleware import TOO_MANY_REQUESTS, on_body_received, request_id
from serve.settings import Settings

# From `depthray serve` to the proxies, which are other processes and know no settings. Its name must not begin as those
# of settings do, DEPTHRAY_SERVE_: reading settings where it is set would find an unknown key.
VARIABLE = "_DEPTHRAY_ADMISSION_LIMITS"
SMOOTHING = 0.1  # weight of the newest answer in the estimate of the capacity
# While replicas may be added, this many times the ongoing requests that make Serve start another one are admitted:
# fewer, and Serve would never see the load.
SCALE_UP_FACTOR = 2.0


class Capacity:
    """How many requests are admitted: as many as are answered within the target time, by Little's law."""

    def __init__(self, *, seconds: float, least: int, most: int) -> None:
        self._seconds, self._least, self._most = seconds, min(least, most), most
        self._estimate = float(most)  # until answers show how much can be answered in time
        self.ongoing = 0

    @property
    def is_full(self) -> bool:
        """Whether another request would wait too long."""
        return self.ongoing >= max(self._least, min(self._most, round(self._estimate)))

    def update(self, ongoing: int, seconds: float) -> None:
        """Learn from an answer that took so many seconds while so many requests were ongoing."""
        # At that rate, as many as this are answered within the target time.
        fit = min(float(self._most), ongoing * self._seconds / max(seconds, 1e-6))
        self._estimate += SMOOTHING * (fit - self._estimate)


class AdmissionControl:
    """ASGI middleware around Serve's proxy. A body that still arrives does not count: slow senders block nobody."""

    def __init__(self, app: ASGIApp, *, capacity: Capacity) -> None:
        self._app, self._capacity = app, capacity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Only images cost anything: health and pages are answered under any load.
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        if self._capacity.is_full:
            return await _refuse(scope, receive, send)
        started, ongoing, status = 0.0, 0, 0

        def start() -> None:
            nonlocal started, ongoing
            self._capacity.ongoing += 1
            started, ongoing = time.monotonic(), self._capacity.ongoing

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, on_body_received(receive, start), send_on)
        finally:
            self._capacity.ongoing -= started > 0
            if started and status == 200:  # refusals and failures take no time, and would raise the estimate
                self._capacity.update(ongoing, time.monotonic() - started)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    problem = problems.Problem(429, TOO_MANY_REQUESTS, headers=problems.RETRY_HEADERS)
    response = problems.response(problem, request_id=request_id(scope))
    response.headers["X-Request-ID"] = request_id(scope)  # as the proxy itself would, had the request reached it
    await response(scope, receive, send)


def encode_limits(settings: Settings) -> str:
    """The limits of admission control as the value of the environment variable."""
    replicas = settings.model_replicas
    can_scale = replicas.max > replicas.min
    least = int(SCALE_UP_FACTOR * replicas.ongoing * replicas.max) if can_scale else 2 * replicas.max
    return f"{settings.answer_seconds} {least} {settings.queued}"


def capacity_from_environment() -> Capacity | None:
    """The capacity by the environment variable; None where Serve was started without admission control."""
    if VARIABLE not in os.environ:
        return None
    seconds, least, most = os.environ[VARIABLE].split()
    return Capacity(seconds=float(seconds), least=int(least), most=int(most))
