"""What a thread loads ahead: in order, not far, and let go of by whoever holds it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from depthray.data.loader import load_ahead


def test_ahead_keeps_order_and_stays_two_ahead() -> None:
    made: list[int] = []
    results = load_ahead(lambda key: made.append(key) or key, range(10))  # type: ignore[func-returns-value]
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(made) <= 3
    assert list(load_ahead(str, range(10))) == [str(i) for i in range(10)]


def test_results_may_be_let_go_of_by_the_thread_that_loads_them() -> None:
    """As the garbage collector does when a step failed: the error's traceback holds the iterator in a cycle."""
    held: list[Iterator[int]] = []
    waits, gone = threading.Event(), threading.Event()

    def make(key: int) -> int:
        if key == 3:
            waits.wait(60)
            held.clear()  # the last reference; pytest fails a test for an error that nothing can catch
            gone.set()
        return key

    held.append(load_ahead(make, range(10)))
    assert [next(held[0]), next(held[0])] == [0, 1]
    waits.set()
    assert gone.wait(60) and not held
