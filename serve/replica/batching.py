"""Dynamic batching: requests of one kind share a forward pass. Full batches under load, and no waiting without load.

Several passes may run concurrently, each in a thread; the queue is divided among those that are idle.

Ray's own `serve.batch` closes batches before a pass is free to run them, and so makes small ones.
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


class DeadlinePassed(Exception):
    """The deadline passed while the item was in the queue."""


class OutOfMemory(Exception):
    """One item alone does not fit into memory."""


@dataclass
class _QueuedItem(Generic[Item]):
    """An item in the queue."""

    kind: Hashable
    item: Item
    deadline: float  # time.monotonic()
    future: asyncio.Future[Any]
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class TimedResult(Generic[Result]):
    """A result, the seconds it took, and the size of its batch."""

    result: Result
    queue: float
    model: float
    batch: int


class DynamicBatcher(Generic[Item, Result]):
    """Gathers items of equal kind for `run(kind, items) -> results`, which runs in one of `concurrent_passes` threads.

    A first item waits up to `wait_timeout` seconds for others. `memory` are the exceptions that mean too little memory:
    the batch is then computed in halves.
    """

    def __init__(
        self,
        run: Callable[[Any, Sequence[Item]], Sequence[Result]],
        *,
        max_batch_size: int,
        concurrent_passes: int = 1,
        wait_timeout: float = 0.0,
        memory: tuple[type[Exception], ...] = (),
    ) -> None:
        self.max_batch_size, self.concurrent_passes, self.wait_timeout = max_batch_size, concurrent_passes, wait_timeout
        self._run = run
        self._memory: tuple[type[Exception], ...] = (*memory, MemoryError)  # of the CPU, whatever the device is
        # Changed on the event loop alone, so without a lock.
        self._queue: deque[_QueuedItem[Item]] = deque()
        self._threads = ThreadPoolExecutor(concurrent_passes, thread_name_prefix="depthray-model")
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: list[float] = []  # when the ongoing passes started

    async def __call__(self, kind: Hashable, item: Item, *, deadline: float) -> TimedResult[Result]:
        """The result of one item, or its exception; DeadlinePassed if it is still in the queue at the deadline."""
        loop = asyncio.get_running_loop()
        queued = _QueuedItem(kind, item, deadline, loop.create_future())
        self._queue.append(queued)
        # A task that is done but not discarded yet has found the queue empty, and will not see this item.
        if sum(not task.done() for task in self._tasks) < self.concurrent_passes:
            task = loop.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        timed: TimedResult[Result] = await queued.future
        return timed

    @property
    def busy_since(self) -> float | None:
        """When the longest of the ongoing passes started; None without any."""
        return min(self._running, default=None)

    @property
    def has_one_pass(self) -> bool:
        """Whether there is work for no more than one pass."""
        return len(self._running) < 2 and not self._queue

    async def run_in_thread(self, work: Callable[[], Any]) -> Any:
        """Compute in one of the threads of the passes, so between two of them."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """End the threads after their current batches."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _drain(self) -> None:
        """Compute batches until the queue is empty."""
        while self._queue:
            if self.wait_timeout and len(self._queue) < self.max_batch_size:
                # Once, whether the batch fills or not: no item waits longer.
                await asyncio.sleep(self.wait_timeout)
            batch = self._take_batch()
            if not batch:
                continue
            started = time.monotonic()
            self._running.append(started)
            try:
                compute = partial(self._compute, batch[0].kind, [queued.item for queued in batch])
                outcomes = await self.run_in_thread(compute)
            except Exception as error:  # of the thread itself; no caller may wait for ever
                outcomes = [error] * len(batch)
            finally:
                self._running.remove(started)
            self._deliver(batch, outcomes, started)

    def _take_batch(self) -> list[_QueuedItem[Item]]:
        """The oldest item and others of its kind, in their order; cancelled and late ones are dropped."""
        now, size = time.monotonic(), self._share()
        batch: list[_QueuedItem[Item]] = []
        others: deque[_QueuedItem[Item]] = deque()
        for queued in self._queue:
            if queued.future.done():  # cancelled: its client has left
                continue
            if queued.deadline <= now:
                queued.future.set_exception(DeadlinePassed())
            elif len(batch) < size and (not batch or queued.kind == batch[0].kind):
                batch.append(queued)
            else:
                others.append(queued)
        self._queue = others
        return batch

    def _share(self) -> int:
        """Items for one pass: as many as fit, or an equal share where other passes are idle and take the rest."""
        idle = self.concurrent_passes - len(self._running)
        return min(self.max_batch_size, -(-len(self._queue) // max(1, idle)))  # rounded up, so that nothing stays

    def _deliver(self, batch: list[_QueuedItem[Item]], outcomes: Sequence[Result | Exception], started: float) -> None:
        seconds = time.monotonic() - started
        for queued, outcome in zip(batch, outcomes, strict=True):
            if queued.future.done():  # cancelled meanwhile
                continue
            if isinstance(outcome, Exception):
                queued.future.set_exception(outcome)
            else:
                queued.future.set_result(TimedResult(outcome, started - queued.since, seconds, len(batch)))

    def _compute(self, kind: Any, items: Sequence[Item]) -> list[Result | Exception]:
        """The results of a batch. If one item fails the others are computed one by one, if memory fails in halves."""
        try:
            return list(self._run(kind, items))
        except self._memory as error:
            if len(items) == 1:
                return [OutOfMemory(str(error))]
            half = len(items) // 2
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [outcome for item in items for outcome in self._compute(kind, [item])]
        # After the except clause, whose exception would keep the tensors of the failed batch alive.
        return [*self._compute(kind, items[:half]), *self._compute(kind, items[half:])]
