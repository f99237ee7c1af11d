"""Lines on what is awaited, while nothing else is printed: a command that is silent looks like one that hangs."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import IO

# A dead rank must become an error of the others, not an endless wait; the longest legitimate wait is a validation.
TIMEOUT_MINUTES = 30.0
EVERY = 9.0  # seconds of silence before a line, and between two


class Heartbeat:
    """Prints `waiting for WHAT: N s` after each `EVERY` seconds without a call of `beat`, while its context lasts."""

    def __init__(self, what: str, *, stream: IO[str] | None = None, every: float | None = None) -> None:
        self._what, self._stream, self._every = what, stream, EVERY if every is None else every
        self._began = self._last = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._began = self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def beat(self, what: str = "") -> None:
        """Something else was printed; from now on `what` is awaited."""
        self._what = what or self._what
        self._began = self._last = time.monotonic()

    def _run(self) -> None:
        while not self._done.wait(max(0.01, self._last + self._every - time.monotonic())):
            now = time.monotonic()
            if now - self._last < self._every:  # beaten meanwhile
                continue
            self._last = now
            # Looked up only now: who captures the output replaces the stream.
            print(f"waiting for {self._what}: {now - self._began:.0f} s", file=self._stream or sys.stderr, flush=True)
