"""Admission control at the proxy: as many requests as are answered within the target time, others refused at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serve import settings as settings_of
from serve.proxy import admission, uvicorn
from serve.proxy.admission import AdmissionControl, Capacity

SCOPE = {"type": "http", "method": "POST", "headers": [(b"x-request-id", b"abc")]}


def capacity(**changes: Any) -> Capacity:
    return Capacity(**{"seconds": 0.5, "least": 2, "most": 32, **changes})


def admitted(limit: Capacity, *, ongoing: int, seconds: float) -> int:
    """How many requests are admitted after answers that took so many seconds among so many ongoing requests."""
    for _ in range(200):
        limit.update(ongoing, seconds)
    limit.ongoing = 0
    while not limit.is_full:
        limit.ongoing += 1
    return limit.ongoing


@pytest.mark.parametrize(
    ("ongoing", "seconds", "expected"),
    [
        (16, 1.0, 8),  # 16 a second: 8 in half a second
        (4, 0.1, 20),
        (1, 0.001, 32),  # never more than `most`
        (2, 60.0, 2),  # never fewer than `least`
    ],
)
def test_capacity_follows_the_rate_of_answers(ongoing: int, seconds: float, expected: int) -> None:
    assert admitted(capacity(), ongoing=ongoing, seconds=seconds) == expected


class Clock:
    """time.monotonic of admission, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("serve.proxy.admission.time.monotonic", lambda: self.now)


def simulate(limit: Capacity, clock: Clock, *, rate: float, capacity: float, seconds: float) -> list[float | None]:
    """Requests at a rate at a server that answers `capacity` a second in turn: seconds of each, None if refused."""
    answers: list[float | None] = []
    ongoing: list[tuple[float, float, int]] = []  # until when, since when, among how many
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 1 / rate
        for until, since, among in [each for each in ongoing if each[0] <= clock.now]:
            limit.ongoing -= 1
            limit.update(among, until - since)
        ongoing = [each for each in ongoing if each[0] > clock.now]
        limit.count()
        if limit.is_full:
            answers.append(None)
            continue
        limit.ongoing += 1
        until = max([clock.now, *(each[0] for each in ongoing)]) + 1 / capacity
        ongoing.append((until, clock.now, limit.ongoing))
        answers.append(until - clock.now)
    for _ in ongoing:
        limit.ongoing -= 1
    return answers


def longest(answers: list[float | None]) -> float:
    return max(each for each in answers if each is not None)


def test_under_overload_the_queue_becomes_short(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limit = capacity(seconds=2.0, most=32)
    assert None not in simulate(limit, clock, rate=20, capacity=25, seconds=10)
    onset = simulate(limit, clock, rate=125, capacity=25, seconds=3)
    steady = simulate(limit, clock, rate=125, capacity=25, seconds=10)
    assert longest(onset) <= 2.0 and longest(steady) <= 3.5 / 25
    assert len([each for each in steady if each is not None]) >= 0.95 * 250, "as many are answered as could be"
    assert None not in simulate(limit, clock, rate=20, capacity=25, seconds=30)[200:], "and none refused afterwards"
    assert None not in simulate(limit, clock, rate=1000, capacity=25, seconds=0.02)


def test_a_burst_and_a_pause_refuse_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limit = capacity(seconds=2.0, most=32)
    simulate(limit, clock, rate=12, capacity=25, seconds=10)
    assert None not in simulate(limit, clock, rate=1000, capacity=25, seconds=0.016), "16 at once"
    clock.now += 5
    # As while a new version is loaded: half as fast, and at half of the usual load.
    assert None not in simulate(limit, clock, rate=12, capacity=11, seconds=8)


def test_clients_that_ask_all_at_once_from_the_start_are_answered_if_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 that ask again when they have their answer, at a service that was just started and answers 25 a second."""
    clock = Clock(monkeypatch)
    limit = capacity(seconds=2.0, most=32)
    ongoing: list[tuple[float, int]] = []  # since when, among how many
    for _ in range(24):
        limit.count()
        assert not limit.is_full
        limit.ongoing += 1
        ongoing.append((clock.now, limit.ongoing))
    for _ in range(500):
        clock.now += 1 / 25
        since, among = ongoing.pop(0)
        limit.ongoing -= 1
        limit.update(among, clock.now - since)
        limit.count()
        assert not limit.is_full, f"refused after {clock.now:.1f} s"
        limit.ongoing += 1
        ongoing.append((clock.now, limit.ongoing))


def test_requests_that_are_refused_by_the_service_are_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limit = capacity(seconds=2.0, most=32)
    simulate(limit, clock, rate=12, capacity=25, seconds=10)
    full = admitted_now(limit)
    inner = Inner(400)
    inner.release.set()

    async def send(message: Any) -> None:
        pass

    async def ask() -> None:
        for _ in range(200):
            await AdmissionControl(inner, capacity=limit)(SCOPE, body(), send)

    asyncio.run(ask())
    assert admitted_now(limit) == full > 10


def admitted_now(limit: Capacity) -> int:
    limit.ongoing = 0
    while not limit.is_full:
        limit.ongoing += 1
    count, limit.ongoing = limit.ongoing, 0
    return count


def test_the_time_in_the_proxy_is_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = Clock(monkeypatch), []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        clock.now += 0.1
        stages = (b"server-timing", b"decode;dur=20.5, model;dur=60")
        await send({"type": "http.response.start", "status": 200, "headers": [stages, (b"x-model", b"a@1")]})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(AdmissionControl(inner, capacity=capacity())(SCOPE, body(), send))
    assert dict(sent[0]["headers"])[b"server-timing"] == b"decode;dur=20.5, model;dur=60, proxy;dur=19.5"


def test_it_grows_again_when_answers_come_faster() -> None:
    limit = capacity()
    assert admitted(limit, ongoing=8, seconds=2.0) == 2
    assert admitted(limit, ongoing=2, seconds=0.05) == 20


class Inner:
    """An application that reads its body, waits to be released, and answers."""

    def __init__(self, status: int = 200) -> None:
        self.release, self.requests, self.status = asyncio.Event(), 0, status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        while (await receive()).get("more_body"):
            pass
        await self.release.wait()
        await send({"type": "http.response.start", "status": self.status, "headers": []})


def body(*, slow: bool = False) -> Any:
    async def receive() -> dict[str, Any]:
        if slow:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": b"x"}

    return receive


def test_a_request_beyond_the_capacity_is_refused_at_once_with_a_problem() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask() -> None:
        inner = Inner()
        limited = AdmissionControl(inner, capacity=capacity(most=2))
        slow = [asyncio.create_task(limited(SCOPE, body(slow=True), send)) for _ in range(5)]
        inside = [asyncio.create_task(limited(SCOPE, body(), send)) for _ in range(2)]
        await asyncio.sleep(0.01)
        await limited(SCOPE, body(), send)
        assert inner.requests == 7  # uploads do not count, and the last request was not admitted
        start, content = sent
        headers = dict(start["headers"])
        assert start["status"] == 429 and headers[b"retry-after"] == b"1" and headers[b"x-request-id"] == b"abc"
        assert json.loads(content["body"])["instance"] == "urn:request:abc"
        inner.release.set()
        await asyncio.gather(*inside)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        await limited(SCOPE, body(), send)
        assert inner.requests == 8

    asyncio.run(ask())


def test_refusals_do_not_change_the_capacity() -> None:
    """Otherwise a client of malformed requests, refused in no time, would raise it beyond what can be computed."""

    async def send(message: Any) -> None:
        pass

    async def ask(status: int) -> int:
        inner, limit = Inner(status), capacity()
        inner.release.set()
        admitted(limit, ongoing=4, seconds=1.0)
        limit.ongoing = 0
        for _ in range(50):
            await AdmissionControl(inner, capacity=limit)(SCOPE, body(), send)
        while not limit.is_full:
            limit.ongoing += 1
        return limit.ongoing

    assert asyncio.run(ask(400)) == 2 < asyncio.run(ask(200)) == 32


def test_proxies_get_the_limits_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(admission.VARIABLE, raising=False)
    before = settings_of.load(None)
    assert admission.capacity_from_environment() is None and uvicorn.limit_headers() == []
    fixed = settings_of.load(None, ["answer_seconds=0.25", "queued=40"], environment={})
    monkeypatch.setenv(admission.VARIABLE, admission.encode_limits(fixed))
    limit = admission.capacity_from_environment()
    assert limit is not None and admitted(limit, ongoing=40, seconds=1.0) == 10
    classes: list[Any] = [each.cls for each in uvicorn.limit_headers()]
    assert classes == [AdmissionControl]
    assert settings_of.load(None) == before, "it is no setting"


def test_replicas_are_added_before_requests_are_refused() -> None:
    overrides = ["queued=500", "model_replicas.max=4", "model_replicas.ongoing=8"]
    scaled = settings_of.load(None, overrides, environment={})
    _, least, most = admission.encode_limits(scaled).split()
    assert int(least) > 8 * 4 and int(most) == 500
