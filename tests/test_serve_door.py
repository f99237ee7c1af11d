"""The door at the proxy: as many inside as are answered in the time wanted, others refused before anything is done."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serve import settings as settings_of
from serve.proxy import admission, uvicorn
from serve.proxy.admission import Door, Room

SCOPE = {"type": "http", "method": "POST", "headers": [(b"x-request-id", b"abc")]}


def room(**changes: Any) -> Room:
    return Room(**{"seconds": 0.5, "least": 2, "most": 32, **changes})


def filled(there: Room, *, inside: int, seconds: float) -> int:
    """How many find room once so many were answered in so many seconds each."""
    for _ in range(200):
        there.learn(inside, seconds)
    there.inside = 0
    while not there.full:
        there.inside += 1
    return there.inside


@pytest.mark.parametrize(
    ("inside", "seconds", "fits"),
    [
        (16, 1.0, 8),  # 16 a second: 8 in half a second
        (4, 0.1, 20),
        (1, 0.001, 32),  # never more than `most`
        (2, 60.0, 2),  # never fewer than `least`
    ],
)
def test_room_follows_the_rate(inside: int, seconds: float, fits: int) -> None:
    assert filled(room(), inside=inside, seconds=seconds) == fits


def test_it_grows_again_when_answers_come_faster() -> None:
    there = room()
    assert filled(there, inside=8, seconds=2.0) == 2
    assert filled(there, inside=2, seconds=0.05) == 20


class Inner:
    """An application that reads its body, waits to be let go, and answers."""

    def __init__(self, status: int = 200) -> None:
        self.go, self.asked, self.status = asyncio.Event(), 0, status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        while (await receive()).get("more_body"):
            pass
        await self.go.wait()
        await send({"type": "http.response.start", "status": self.status, "headers": []})


def body(*, slow: bool = False) -> Any:
    async def receive() -> dict[str, Any]:
        if slow:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": b"x"}

    return receive


def test_who_finds_no_room_is_told_at_once_and_in_our_words() -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def ask() -> None:
        inner = Inner()
        entry = Door(inner, room=room(most=2))
        slow = [asyncio.create_task(entry(SCOPE, body(slow=True), send)) for _ in range(5)]
        inside = [asyncio.create_task(entry(SCOPE, body(), send)) for _ in range(2)]
        await asyncio.sleep(0.01)
        await entry(SCOPE, body(), send)
        assert inner.asked == 7  # those that still send took no place, and the last one was not let in
        start, content = said
        headers = dict(start["headers"])
        assert start["status"] == 429 and headers[b"retry-after"] == b"1" and headers[b"x-request-id"] == b"abc"
        assert json.loads(content["body"])["instance"] == "urn:request:abc"
        inner.go.set()
        await asyncio.gather(*inside)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        await entry(SCOPE, body(), send)
        assert inner.asked == 8

    asyncio.run(ask())


def test_what_is_no_answer_teaches_nothing() -> None:
    """Else a client that sends nonsense, refused in no time, would let in more than can be computed."""

    async def send(message: Any) -> None:
        pass

    async def ask(status: int) -> int:
        inner, there = Inner(status), room()
        inner.go.set()
        filled(there, inside=4, seconds=1.0)
        there.inside = 0
        for _ in range(50):
            await Door(inner, room=there)(SCOPE, body(), send)
        while not there.full:
            there.inside += 1
        return there.inside

    assert asyncio.run(ask(400)) == 2 < asyncio.run(ask(200)) == 32


def test_proxies_hear_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(admission.VARIABLE, raising=False)
    assert admission.heard() is None and uvicorn.bounded() == []
    fixed = settings_of.load(None, ["answer_seconds=0.25", "queued=40"], environment={})
    monkeypatch.setenv(admission.VARIABLE, admission.told(fixed))
    there = admission.heard()
    assert there is not None and filled(there, inside=40, seconds=1.0) == 10
    assert [each.cls for each in uvicorn.bounded()] == [Door]


def test_more_replicas_are_asked_for_before_anybody_is_refused() -> None:
    words = ["queued=500", "model_replicas.max=4", "model_replicas.ongoing=8"]
    scaled = settings_of.load(None, words, environment={})
    _, least, most = admission.told(scaled).split()
    assert int(least) > 8 * 4 and int(most) == 500
