"""The limit of concurrent requests: slow uploads do not count, and a request that fails is not counted any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve.http.middleware import ConcurrencyLimit
from serve.http.problems import Problem

SCOPE = {"type": "http", "method": "POST"}


async def send(message: Any) -> None:
    raise AssertionError(message)


class Inner:
    """An application that reads its body and then waits to be released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await self.release.wait()


def body(*, slow: bool = False) -> Any:
    async def receive() -> dict[str, Any]:
        if slow:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": b"x"}

    return receive


def test_only_so_many_at_a_time() -> None:
    async def ask() -> None:
        inner = Inner()
        limited = ConcurrencyLimit(inner, max_requests=2)
        slow = [asyncio.create_task(limited(SCOPE, body(slow=True), send)) for _ in range(5)]
        inside = [asyncio.create_task(limited(SCOPE, body(), send)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Problem) as problem:
            await limited(SCOPE, body(), send)
        assert problem.value.status == 429 and problem.value.headers["Retry-After"] == "1"
        await asyncio.wait_for(_get(limited, inner), 1)
        inner.release.set()
        await asyncio.gather(*inside)
        await limited(SCOPE, body(), send)
        for task in slow:
            task.cancel()

    asyncio.run(ask())


async def _get(limited: ConcurrencyLimit, inner: Inner) -> None:
    """GET, as of health checks, is not limited."""
    task = asyncio.create_task(limited({"type": "http", "method": "GET"}, body(), send))
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()


def test_a_request_that_fails_is_not_counted_any_more() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("broken")

    async def ask() -> None:
        limited = ConcurrencyLimit(broken, max_requests=1)
        for _ in range(3):
            with pytest.raises(ValueError, match=r"^broken$"):
                await limited(SCOPE, body(), send)

    asyncio.run(ask())


def test_once_closed_it_answers_earlier_requests_alone() -> None:
    async def ask() -> None:
        inner = Inner()
        limited = ConcurrencyLimit(inner, max_requests=2)
        arriving = asyncio.Event()

        async def rest() -> dict[str, Any]:
            await arriving.wait()
            return {"type": "http.request", "body": b"x"}

        before = [asyncio.create_task(limited(SCOPE, each, send)) for each in (body(), rest)]
        await asyncio.sleep(0.01)
        assert limited.close() == 2
        with pytest.raises(Problem) as problem:
            await limited(SCOPE, body(), send)
        assert problem.value.status == 503 and problem.value.headers["Retry-After"] == "1"
        arriving.set()
        inner.release.set()
        await asyncio.gather(*before)
        assert limited.close() == 0

    asyncio.run(ask())
