"""Batches: full under load, none waits without, and one bad item does not affect the others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from serve.replica.batching import DeadlinePassed, DynamicBatcher, OutOfMemory

SOON = 60.0


def gather(batches: DynamicBatcher[Any, Any], items: list[Any], kinds: str | None = None) -> list[Any]:
    """The outcomes of items submitted at once, each of its kind."""

    async def ask() -> list[Any]:
        deadline = time.monotonic() + SOON
        calls = [
            batches(kind, item, deadline=deadline) for item, kind in zip(items, kinds or "a" * len(items), strict=True)
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    try:
        return asyncio.run(ask())
    finally:
        batches.close()


def doubled(kind: Any, items: Any) -> list[Any]:
    if "bad" in items:
        raise ValueError("bad")
    return [item * 2 for item in items]


def test_a_first_item_does_not_wait_and_the_rest_fill_batches() -> None:
    sizes: list[int] = []

    def run(kind: Any, items: Any) -> list[Any]:
        sizes.append(len(items))
        time.sleep(0.02)
        return doubled(kind, items)

    found = gather(DynamicBatcher(run, max_batch_size=4), list(range(10)))
    assert [timed.result for timed in found] == [item * 2 for item in range(10)]
    assert sizes == [4, 4, 2]
    assert found[0].queue < 0.02 < found[-1].queue and found[0].batch == 4


def test_kinds_do_not_mix_and_keep_their_order() -> None:
    seen: list[Any] = []

    def run(kind: Any, items: Any) -> list[Any]:
        seen.append((kind, list(items)))
        return doubled(kind, items)

    gather(DynamicBatcher(run, max_batch_size=8), [1, 2, 3, 4, 5], "abaab")
    assert seen == [("a", [1, 3, 4]), ("b", [2, 5])]


def test_one_bad_item_does_not_affect_others() -> None:
    found = gather(DynamicBatcher(doubled, max_batch_size=16), [*range(7), "bad", *range(8)])
    assert isinstance(found.pop(7), ValueError)
    assert [timed.result for timed in found] == [item * 2 for item in [*range(7), *range(8)]]


def test_what_does_not_fit_into_memory_is_computed_in_halves() -> None:
    sizes: list[int] = []

    def run(kind: Any, items: Any) -> list[Any]:
        sizes.append(len(items))
        if len(items) > 2 or "huge" in items:
            raise MemoryError
        return doubled(kind, items)

    found = gather(DynamicBatcher(run, max_batch_size=8), [0, 1, 2, 3, "huge"])
    assert isinstance(found.pop(), OutOfMemory)
    assert [timed.result for timed in found] == [0, 2, 4, 6]
    assert sizes[0] == 5 and max(sizes[1:]) <= 3


def test_late_and_cancelled_items_are_not_computed() -> None:
    computed: list[Any] = []

    def run(kind: Any, items: Any) -> list[Any]:
        computed.extend(items)
        time.sleep(0.05)
        return doubled(kind, items)

    async def ask() -> None:
        batches = DynamicBatcher[Any, Any](run, max_batch_size=1)
        deadline = time.monotonic() + SOON
        first = asyncio.create_task(batches("a", 1, deadline=deadline))
        late = asyncio.create_task(batches("a", 2, deadline=time.monotonic() + 0.01))
        gone = asyncio.create_task(batches("a", 3, deadline=deadline))
        last = asyncio.create_task(batches("a", 4, deadline=deadline))
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(DeadlinePassed):
            await late
        assert [(await first).result, (await last).result] == [2, 8]
        batches.close()

    asyncio.run(ask())
    assert computed == [1, 4]


def test_who_comes_when_the_last_pass_ends_is_not_forgotten() -> None:
    """A drain that has looked for the last time is not counted on any more."""

    async def ask() -> None:
        batches: DynamicBatcher[Any, Any] = DynamicBatcher(doubled, max_batch_size=4)
        deadline = time.monotonic() + SOON

        async def again(left: int) -> None:
            await batches("a", 1, deadline=deadline)
            if left:
                await again(left - 1)

        await asyncio.wait_for(again(20), 10)
        batches.close()

    asyncio.run(ask())


def test_passes_side_by_side_share_what_waits() -> None:
    sizes, together, running = [], [], 0

    def run(kind: Any, items: Any) -> list[Any]:
        nonlocal running
        running += 1
        sizes.append(len(items))
        together.append(running)
        time.sleep(0.05)
        running -= 1
        return doubled(kind, items)

    batches: DynamicBatcher[Any, Any] = DynamicBatcher(run, max_batch_size=4, concurrent_passes=2)
    found = gather(batches, list(range(12)))
    assert [timed.result for timed in found] == [item * 2 for item in range(12)]
    assert sizes[:2] == [4, 4] and max(together) == 2 and batches.busy_since is None


def test_a_few_are_split_among_passes_that_are_free() -> None:
    sizes: list[int] = []

    def run(kind: Any, items: Any) -> list[Any]:
        sizes.append(len(items))
        time.sleep(0.02)
        return doubled(kind, items)

    gather(DynamicBatcher(run, max_batch_size=8, concurrent_passes=2), [1, 2, 3, 4])
    assert sizes == [2, 2]
