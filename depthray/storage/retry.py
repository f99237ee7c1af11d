"""Retries with growing pauses, for stores, file servers and clusters that may be away for a while.

The budget is time, not a number of tries: `seconds` from the first failure. The first failure is logged, and then the
end of failing; what comes between would fill the log of a run that waits for an hour.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds; pauses double, each shortened at random so that clients spread


class Outage:
    """Failures in a row: how many there are, and since when."""

    def __init__(self) -> None:
        self.failures, self._since = 0, 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the first failure, 0 without one."""
        return time.monotonic() - self._since if self.failures else 0.0

    def record(self) -> None:
        """Count a failure."""
        if not self.failures:
            # The time of day may be set while a run waits.
            self._since = time.monotonic()
        self.failures += 1

    def reset(self) -> None:
        """Forget the failures: it works again."""
        self.failures = 0


class Retry:
    """Runs actions again while they fail with a transient error, until they have failed for `seconds`.

    `seconds` may be changed by another thread meanwhile. `describe` shortens an error for the log. A Retry is made in
    the process that uses it: its lock does not survive a fork.
    """

    def __init__(
        self,
        seconds: float,
        *,
        is_transient: Callable[[BaseException], bool],
        log: Callable[[str], None] = lambda _: None,
        describe: Callable[[BaseException], str] = str,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.seconds, self.is_transient, self.log, self.describe = seconds, is_transient, log, describe
        self._hurried = threading.Event()
        self._sleep = sleep or self._wait

    def run(self, action: Callable[[], T]) -> T:
        """The action's result; its own error where that is permanent or has lasted for too long."""
        outage = Outage()
        backoff = tenacity.wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE, min=FIRST_PAUSE / 2)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self.is_transient),
            after=lambda _: outage.record(),  # before `stop`, which measures from the first failure
            stop=lambda _: outage.seconds >= self.seconds,
            # The last pause ends with the budget, so that there is one more try at its very end.
            wait=lambda state: min(backoff(state), max(0.0, self.seconds - outage.seconds)),
            before_sleep=lambda state: self._log_first_failure(outage, state),
            sleep=self._sleep,
            reraise=True,  # the action's own error, not tenacity's
        )
        result = retrying(action)
        if outage.failures:
            self.log(f"storage: works again after {outage.failures} failures in {outage.seconds:.0f} s")
        return result

    def hurry(self) -> None:
        """End the pause under way and let the next failure be the last."""
        self.seconds = 0.0
        self._hurried.set()

    def _wait(self, seconds: float) -> None:
        self._hurried.wait(seconds)  # not time.sleep: `hurry` ends a pause under way

    def _log_first_failure(self, outage: Outage, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is None or outage.failures > 1:
            return
        budget = f"for {self.seconds - outage.seconds:.0f} s" if math.isfinite(self.seconds) else "until it works"
        self.log(f"storage: {self.describe(error)}; trying again {budget}")
