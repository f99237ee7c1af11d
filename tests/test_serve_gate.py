"""The gate: so many at a time, slow senders take no place, and one that left makes room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve.http.gate import Gate
from serve.http.problems import Problem

SCOPE = {"type": "http", "method": "POST"}


async def send(message: Any) -> None:
    raise AssertionError(message)


class Inner:
    """An application that reads its body and then waits to be let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await self.go.wait()


def body(*, slow: bool = False) -> Any:
    async def receive() -> dict[str, Any]:
        if slow:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": b"x"}

    return receive


def test_so_many_at_a_time_and_room_again_after() -> None:
    async def ask() -> None:
        inner = Inner()
        gate = Gate(inner, most=2)
        slow = [asyncio.create_task(gate(SCOPE, body(slow=True), send)) for _ in range(5)]
        inside = [asyncio.create_task(gate(SCOPE, body(), send)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Problem) as problem:
            await gate(SCOPE, body(), send)
        assert problem.value.status == 429 and problem.value.headers["Retry-After"] == "1"
        await asyncio.wait_for(_get(gate, inner), 1)
        inner.go.set()
        await asyncio.gather(*inside)
        await gate(SCOPE, body(), send)
        for task in slow:
            task.cancel()

    asyncio.run(ask())


async def _get(gate: Gate, inner: Inner) -> None:
    """Health is asked without a place."""
    task = asyncio.create_task(gate({"type": "http", "method": "GET"}, body(), send))
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()


def test_a_request_that_breaks_off_leaves_its_place() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError

    async def ask() -> None:
        gate = Gate(broken, most=1)
        for _ in range(3):
            with pytest.raises(ValueError):
                await gate(SCOPE, body(), send)

    asyncio.run(ask())


def test_a_closed_gate_answers_who_came_before_and_nobody_else() -> None:
    async def ask() -> None:
        inner = Inner()
        gate = Gate(inner, most=2)
        arriving = asyncio.Event()

        async def rest() -> dict[str, Any]:
            await arriving.wait()
            return {"type": "http.request", "body": b"x"}

        before = [asyncio.create_task(gate(SCOPE, each, send)) for each in (body(), rest)]
        await asyncio.sleep(0.01)
        assert gate.close() == 2
        with pytest.raises(Problem) as problem:
            await gate(SCOPE, body(), send)
        assert problem.value.status == 503 and problem.value.headers["Retry-After"] == "1"
        arriving.set()
        inner.go.set()
        await asyncio.gather(*before)
        assert gate.close() == 0

    asyncio.run(ask())
