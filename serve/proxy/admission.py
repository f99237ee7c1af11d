"""Admission control at Serve's proxy: a request that would have to wait too long gets 429 before anything is done.

To refuse a request in the ingress costs a good part of answering it: its body goes from process to process first. Under
five times the load that can be answered, refusing would take half of the machine.
"""

from __future__ import annotations

import os
import re
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http import problems
from serve.http.middleware import TOO_MANY_REQUESTS, on_body_received, request_id
from serve.settings import Settings

# From `depthray serve` to the proxies, which are other processes and know no settings. Its name must not begin as those
# of settings do, DEPTHRAY_SERVE_: reading settings where it is set would find an unknown key.
VARIABLE = "_DEPTHRAY_ADMISSION_LIMITS"
SMOOTHING = 0.1  # weight of the newest answer in the estimates
# While replicas may be added, this many times the ongoing requests that make Serve start another one are admitted:
# fewer, and Serve would never see the load.
SCALE_UP_FACTOR = 2.0
OVERLOAD = 1.25  # times as many requests as can be answered, from which on a queue would stay full
BURST = 16.0  # requests that may come beyond that at once, or those that are answered in time if they are more
LEARNING = 20  # answers until the rate is known well enough to tell an overload
QUEUE_FACTOR = 2.5  # time of an answer under overload, in times of one without load
_DURATION = re.compile(r";dur=(\d+(?:\.\d+)?)")


class Capacity:
    """How many requests are admitted at a time, by Little's law from the newest answers.

    Usually as many as are answered within `seconds`: a queue that empties again refuses nobody, whether clients came
    all at once or a new version is being loaded on the same cores. Under overload any queue stays full, and a longer
    one delays all of its requests and answers no more of them. It is then kept as short as still keeps all cores busy,
    until clients ask for less.
    """

    def __init__(self, *, seconds: float, least: int, most: int) -> None:
        self._seconds, self._least, self._most = seconds, min(least, most), most
        self._rate = most / seconds  # answers a second if all were busy; until answers show it, all are admitted
        self._unloaded = float("inf")  # seconds of an answer without load
        self._is_overloaded = False
        # Requests that may come before it is overload.
        self._credit, self._counted = self._most_credit, time.monotonic()
        self._answers = 0
        self.ongoing = 0

    @property
    def is_full(self) -> bool:
        """Whether another request would wait too long."""
        seconds = min(self._seconds, QUEUE_FACTOR * self._unloaded) if self._is_overloaded else self._seconds
        return self.ongoing >= max(self._least, min(self._most, round(self._rate * seconds)))

    @property
    def _most_credit(self) -> float:
        return max(BURST, self._rate * self._seconds)

    def count(self, requests: int = 1) -> None:
        """Learn of a request, admitted or not; or that one was none, by -1."""
        now = time.monotonic()
        if self._answers < LEARNING:
            self._credit, self._counted = self._most_credit, now
            return
        earned = OVERLOAD * self._rate * (now - self._counted)
        self._credit, self._counted = min(self._most_credit, self._credit + earned) - requests, now
        if self._credit < 0:
            self._credit, self._is_overloaded = 0.0, True
        elif self._credit >= self._most_credit - 1:
            self._is_overloaded = False

    def update(self, ongoing: int, seconds: float) -> None:
        """Learn from an answer that took so many seconds while so many requests were ongoing."""
        seconds = max(seconds, 1e-6)
        self._answers += 1
        self._rate += SMOOTHING * (ongoing / seconds - self._rate)
        if seconds < self._unloaded:
            self._unloaded = seconds
        elif ongoing == 1:  # a slower network may have been promoted
            self._unloaded += SMOOTHING * (seconds - self._unloaded)


class AdmissionControl:
    """ASGI middleware around Serve's proxy. A body that still arrives does not count: slow senders block nobody."""

    def __init__(self, app: ASGIApp, *, capacity: Capacity) -> None:
        self._app, self._capacity = app, capacity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Only images cost anything: health and pages are answered under any load.
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        self._capacity.count()
        if self._capacity.is_full:
            return await _refuse(scope, receive, send)
        arrived = time.monotonic()
        started, ongoing, status = 0.0, 0, 0

        def start() -> None:
            nonlocal started, ongoing
            self._capacity.ongoing += 1
            started, ongoing = time.monotonic(), self._capacity.ongoing

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_timing(message, time.monotonic() - arrived)
            await send(message)

        try:
            await self._app(scope, on_body_received(receive, start), send_on)
        finally:
            self._capacity.ongoing -= started > 0
            if started and status == 200:  # refusals and failures take no time, and would raise the estimate
                self._capacity.update(ongoing, time.monotonic() - started)
            elif status and status != 429:
                self._capacity.count(-1)


def _add_timing(message: Message, seconds: float) -> None:
    """Add the time in the proxy, and from it to the ingress and back, to the header Server-Timing of a response."""
    headers = MutableHeaders(scope=message)
    if stages := headers.get("server-timing"):
        inside = sum(map(float, _DURATION.findall(stages)))
        headers["server-timing"] = f"{stages}, proxy;dur={max(0.0, 1000 * seconds - inside):.1f}"


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
