"""Locks between the processes of a machine, each in a file of its own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a path, and yield whether it could be had; it ends with the process at the latest."""
    # Lock files are never removed: a process could wait for one that is gone while another creates it anew.
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield try_lock(handle, wait=wait)
    finally:
        # By itself the lock would last until loader processes that were forked meanwhile have closed the file too.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def try_lock(handle: int, *, wait: bool) -> bool:
    """Whether an open file could be locked for this process alone."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
