"""Requests of one kind share a forward pass. Full batches under load, no waiting without: a pass takes what is there.

Several passes may run side by side, each in a thread; what waits is shared out among those that are free.

Ray's own `serve.http.batch_route` closes batches before a pass is free to run them and so makes small ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Late(Exception):
    """The deadline passed while the item waited."""


class OutOfMemory(Exception):
    """One item alone does not fit into memory."""


@dataclass
class _Waiting(Generic[Item]):
    """An item in the queue."""

    kind: Hashable
    item: Item
    deadline: float  # time.monotonic()
    future: asyncio.Future[Any]
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """A result and the seconds it took."""

    result: Result
    queue: float
    model: float
    batch: int


class Batches(Generic[Item, Result]):
    """Gathers items of equal kind for `run(kind, items) -> results`, which computes in one of `passes` threads.

    `memory` are the exceptions that mean too little memory: the batch is then computed in halves.
    """

    def __init__(
        self,
        run: Callable[[Any, Sequence[Item]], Sequence[Result]],
        *,
        most: int,
        passes: int = 1,
        linger: float = 0.0,
        memory: tuple[type[Exception], ...] = (),
    ) -> None:
        self.most, self.passes, self.linger = most, passes, linger
        self._run = run
        self._memory: tuple[type[Exception], ...] = (*memory, MemoryError)
        self._queue: deque[_Waiting[Item]] = deque()
        self._threads = ThreadPoolExecutor(passes, thread_name_prefix="depthray-model")
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: list[float] = []  # when the passes under way began

    async def __call__(self, kind: Hashable, item: Item, *, deadline: float) -> Timed[Result]:
        """The result of one item; its own exception if it fails, Late if its turn comes after the deadline."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(kind, item, deadline, loop.create_future())
        self._queue.append(waiting)
        if sum(not task.done() for task in self._tasks) < self.passes:  # one that is done took its last look before
            task = loop.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        timed: Timed[Result] = await waiting.future
        return timed

    @property
    def busy_since(self) -> float | None:
        """When the longest of the passes under way began; None while there is none."""
        return min(self._running, default=None)

    @property
    def alone(self) -> bool:
        """Whether no more than one pass has anything to do."""
        return len(self._running) < 2 and not self._queue

    async def aside(self, work: Callable[[], Any]) -> Any:
        """Compute something else between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """End the threads after the batches under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _drain(self) -> None:
        """Compute until nobody waits."""
        while self._queue:
            if self.linger and len(self._queue) < self.most:
                await asyncio.sleep(self.linger)
            batch = self._take()
            if not batch:
                continue
            started = time.monotonic()
            self._running.append(started)
            try:
                outcomes = await self.aside(partial(self._compute, batch[0].kind, [each.item for each in batch]))
            except Exception as error:  # of the thread itself; nobody may be left waiting
                outcomes = [error] * len(batch)
            finally:
                self._running.remove(started)
            self._hand_out(batch, outcomes, started)

    def _take(self) -> list[_Waiting[Item]]:
        """The oldest item and others of its kind, in their order; those given up or late are dropped."""
        now, most = time.monotonic(), self._share()
        batch: list[_Waiting[Item]] = []
        others: deque[_Waiting[Item]] = deque()
        for waiting in self._queue:
            if waiting.future.done():
                continue
            if waiting.deadline <= now:
                waiting.future.set_exception(Late())
            elif len(batch) < most and (not batch or waiting.kind == batch[0].kind):
                batch.append(waiting)
            else:
                others.append(waiting)
        self._queue = others
        return batch

    def _share(self) -> int:
        """Items for one pass: as many as fit, or an equal part where others are free to take the rest."""
        free = self.passes - len(self._running)
        return min(self.most, -(-len(self._queue) // max(1, free)))

    def _hand_out(self, batch: list[_Waiting[Item]], outcomes: Sequence[Result | Exception], started: float) -> None:
        seconds = time.monotonic() - started
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.future.done():
                continue
            if isinstance(outcome, Exception):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(Timed(outcome, started - waiting.since, seconds, len(batch)))

    def _compute(self, kind: Any, items: Sequence[Item]) -> list[Result | Exception]:
        """Results of all; where one fails the others are computed without it, where memory fails in halves."""
        try:
            return list(self._run(kind, items))
        except self._memory as error:
            if len(items) == 1:
                return [OutOfMemory(str(error))]
            middle = len(items) // 2
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [outcome for item in items for outcome in self._compute(kind, [item])]
        return [*self._compute(kind, items[:middle]), *self._compute(kind, items[middle:])]
