"""Retries end with success, with a permanent error or with the budget, and log two lines at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from depthray.storage import retry
from depthray.storage.retry import Outage, Retry


class Clock:
    """Time that passes only in pauses."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.pauses = 1000.0, list[float]()
        patch.setattr(time, "monotonic", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def failing(times: float, error: type[Exception] = OSError) -> Callable[[], str]:
    """An action that fails so many times, and then works."""
    calls = iter(range(10**9))

    def act() -> str:
        if next(calls) < times:
            raise error("away")
        return "done"

    return act


def is_os_error(error: BaseException) -> bool:
    return isinstance(error, OSError)


def test_an_outage_is_waited_out_and_logged_twice(clock: Clock) -> None:
    lines: list[str] = []
    attempts = Retry(60, is_transient=is_os_error, log=lines.append, sleep=clock.sleep)
    assert attempts.run(failing(4)) == "done"
    waited = sum(clock.pauses)
    assert lines == [
        "storage: away; trying again for 60 s",
        f"storage: works again after 4 failures in {waited:.0f} s",
    ]


def test_what_works_at_once_is_not_logged(clock: Clock) -> None:
    assert Retry(60, is_transient=is_os_error, log=pytest.fail, sleep=clock.sleep).run(failing(0)) == "done"


def test_the_budget_is_time_and_its_last_moment_is_tried(clock: Clock) -> None:
    with pytest.raises(OSError, match="away"):
        Retry(100, is_transient=is_os_error, sleep=clock.sleep).run(failing(10**9))
    assert sum(clock.pauses) == pytest.approx(100)
    assert max(clock.pauses) <= retry.LONGEST_PAUSE and clock.pauses[0] <= retry.FIRST_PAUSE


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_no_second_try_of_what_is_permanent_or_has_no_budget(clock: Clock, seconds: float) -> None:
    error = OSError if seconds == 0 else KeyError
    with pytest.raises(error):
        Retry(seconds, is_transient=is_os_error, sleep=clock.sleep).run(failing(1, error))
    assert not clock.pauses


def test_an_interrupt_is_never_retried() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Retry(60, is_transient=is_os_error).run(interrupt)


def test_hurry_ends_a_pause_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 15.0)
    attempts = Retry(600, is_transient=is_os_error)
    timer = threading.Timer(0.1, attempts.hurry)
    timer.start()
    started = time.monotonic()
    with pytest.raises(OSError, match="away"):
        attempts.run(failing(10**9))
    timer.join()
    assert time.monotonic() - started < 5


def test_an_outage_counts_from_its_first_failure(clock: Clock) -> None:
    outage = Outage()
    assert (outage.failures, outage.seconds) == (0, 0.0)
    outage.record()
    clock.now += 5
    outage.record()
    assert (outage.failures, outage.seconds) == (2, 5.0)
    outage.reset()
    assert (outage.failures, outage.seconds) == (0, 0.0)
