"""Tells a hang from slow work: a hang uses no processor and writes no file, however busy the machine is."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

QUIET = 120.0  # seconds without work that make a hang
SLOW = 1800.0  # seconds after which work is ended that is still going on
BUSY = 0.05  # of a core: Ray's processes use up to 0.035 while they wait, work more even on a machine loaded tenfold
PROC = Path("/proc/self/stat").exists()
TICK = 0.2  # seconds between two questions whether what is waited for has come


class Hang(AssertionError):
    """Nothing happens any more, or it takes longer than `slow` seconds; the message has which."""


class Watch:
    """A process with all below it, and the files in some folders; without /proc nothing counts as a hang.

    Where the process itself only `polls`, its own work does not count.
    """

    def __init__(self, pid: int, *folders: Path, polls: bool = False, quiet: float = QUIET, slow: float = SLOW) -> None:
        self._pid, self._folders, self._polls, self._quiet, self._slow = pid, folders, polls, quiet, slow
        self._began = self._worked = self._looked = time.monotonic()
        self._used, self._sizes = processor_seconds(pid), file_sizes(*folders)

    def check(self) -> None:
        """Raise if nothing has happened for too long; looks seldom, as looking is work as well."""
        now = time.monotonic()
        if now - self._looked < self._quiet / 8:
            return
        self._looked, used, sizes = now, processor_seconds(self._pid), file_sizes(*self._folders)
        if self._polls:
            used.pop(self._pid, None)
        spent = max((seconds - self._used.get(pid, 0.0) for pid, seconds in used.items()), default=0.0)
        written = any(size > self._sizes.get(path, -1) for path, size in sizes.items())
        if written or not PROC or spent > BUSY * self._quiet:
            self._worked, self._used, self._sizes = now, used, sizes
        if now - self._worked > self._quiet:
            raise Hang(f"hung: no processor time used and no file written for {self._quiet:.0f} s")
        if now - self._began > self._slow:
            raise Hang(f"slow: still working after {self._slow:.0f} s, with a load of {os.getloadavg()[0]:.0f}")


def processor_seconds(root: int) -> dict[int, float]:
    """Processor time of a process and of each below it, by process id."""
    parents, used = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        pid = int(entry.parent.name)
        parents[pid], used[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    tree = {root}
    while below := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= below
    return {pid: used[pid] for pid in tree & used.keys()}


def file_sizes(*folders: Path) -> dict[str, int]:
    """The size of every file below the folders."""
    sizes = {}
    for place, _, names in (step for folder in folders for step in os.walk(folder)):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                sizes[f"{place}/{name}"] = os.lstat(f"{place}/{name}").st_size
    return sizes


def until(condition: Callable[[], bool], *folders: Path, tick: float = TICK, quiet: float = QUIET) -> None:
    """Wait until something is true, as long as a process below this one works."""
    watch = Watch(os.getpid(), *folders, polls=True, quiet=quiet)
    while not condition():
        watch.check()
        time.sleep(tick)


def output_of(process: subprocess.Popen[str], *folders: Path, quiet: float = QUIET) -> str:
    """What a process has written to its pipe when it has ended; it is killed when nothing below this one works."""
    watch = Watch(os.getpid(), *folders, polls=True, quiet=quiet)
    while True:
        try:
            return process.communicate(timeout=TICK)[0]
        except subprocess.TimeoutExpired as waiting:
            try:
                watch.check()
            except Hang as hang:
                process.kill()
                raise Hang(f"{hang}\n{(waiting.output or b'').decode()}") from None


@contextmanager
def watched(*folders: Path, quiet: float = QUIET, slow: float = SLOW) -> Iterator[None]:
    """Raise Hang in the main thread when nothing happens any more in what it runs, in any process of this one."""
    watch, over, hangs = Watch(os.getpid(), *folders, quiet=quiet, slow=slow), threading.Event(), list[Hang]()

    def look() -> None:
        while not over.wait(TICK):
            try:
                watch.check()
            except Hang as hang:
                hangs.append(hang)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt  # Ray's own waits let nothing else through

    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt as where:
        if not hangs:
            raise
        raise hangs[0] from where
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
