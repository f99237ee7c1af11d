"""A hang is found by what is not done any more, and slow work is no hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hangs
import pytest

SLEEPS = "import time; print('about to sleep', flush=True); time.sleep(60)"
WORKS = "while True: pass"
BELOW = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKS!r}])"
WRITES = "import sys, time\nwhile True: print('x', file=open(sys.argv[1], 'a')); time.sleep(0.2)"


@contextmanager
def running(code: str, *argv: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, *argv]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_process_that_sleeps_is_hung_and_its_output_is_shown() -> None:
    with running(SLEEPS) as process, pytest.raises(hangs.Hang, match=r"hung: .* for 2 s\nabout to sleep"):
        hangs.output_of(process, quiet=2)


def test_work_is_slow_and_not_hung(tmp_path: Path) -> None:
    with running(WORKS) as works, running(BELOW) as waits, running(WRITES, str(tmp_path / "log")) as writes:
        watches = [hangs.Watch(process.pid, quiet=2, slow=3) for process in (works, waits)]
        watches.append(hangs.Watch(writes.pid, tmp_path, quiet=2, slow=3))
        while watches:
            watches = [watch for watch in watches if not is_slow(watch)]
            time.sleep(0.2)


def is_slow(watch: hangs.Watch) -> bool:
    try:
        watch.check()
    except hangs.Hang as hang:
        assert str(hang).startswith("slow: still working after 3 s")
        return True
    return False


def test_work_that_only_polls_is_a_hang() -> None:
    with running(SLEEPS), pytest.raises(hangs.Hang, match="hung: "):
        hangs.until(lambda: sum(range(10**6)) < 0, tick=0.0, quiet=2)


def test_a_main_thread_that_waits_forever_is_interrupted() -> None:
    with pytest.raises(hangs.Hang, match="hung: "), hangs.watched(quiet=2):
        time.sleep(60)


def test_what_ends_in_time_is_left_alone() -> None:
    with hangs.watched(quiet=2), running("print('done')") as process:
        assert hangs.output_of(process) == "done\n"
        hangs.until(lambda: process.poll() == 0, quiet=2)
