"""Workers that come and go: which numbers of them are allowed, and what a group of them hears while it trains.

The workers, Ray Train's controller (`cluster.scaling_policy`) and lost workers that still run speak through the
key-value store of the cluster, which is the one place that a node cut off from the others cannot reach.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from depthray.checkpoints import select
from depthray.storage.remote import RemoteFolder, is_remote
from depthray.training.state import Hooks

WORDS = b"depthray-groups"  # namespace in the key-value store
GROUP, SAVE, SAVED = "group", "save", "saved"  # the group at work, a wish to save, the wish that was fulfilled
LOOK = 1.0  # seconds between looks for a wish
AGAIN = 15.0  # seconds between save points while a node of the group is about to go
GRACE = 20.0  # seconds that a worker lives on after SIGTERM, if it is let

_terminated = threading.Event()  # this process got SIGTERM


class Superseded(RuntimeError):
    """This worker was given up and another group trains in its place. No DepthrayError: that would end the run."""


def put(attempt: str, key: str, value: str) -> None:
    """Leave a word for the other processes of an attempt."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(f"{attempt}/{key}".encode(), value.encode(), overwrite=True, namespace=WORDS)


def get(attempt: str, key: str) -> str:
    """The word left last, nothing if there was none."""
    from ray.experimental.internal_kv import _internal_kv_get

    return (_internal_kv_get(f"{attempt}/{key}".encode(), namespace=WORDS) or b"").decode()


class Watch:
    """What a worker hears: notice that a node will be taken away, SIGTERM, the wish to save before a resize."""

    def __init__(self, attempt: str, run: str, *, main: bool) -> None:
        self.attempt, self.run, self.main = attempt, run, main
        self.group = secrets.token_hex(8)
        self._wish = self._done = ""  # the wish heard last, the one fulfilled last
        self._again = 0.0
        self._went = False  # SIGTERM was passed on
        if main:
            put(attempt, GROUP, self.group)
            self._wish = self._done = get(attempt, SAVE)
            threading.Thread(target=self._listen, name="depthray-watch", daemon=True).start()

    def outside(self) -> Hooks:
        """What the run asks and tells."""
        return Hooks(save=self.save, check=self.check, saved=self.saved)

    def save(self) -> bool:
        """Whether to save now. Rank 0 hears what all are told; SIGTERM comes to one process only."""
        if _terminated.is_set() and not self._went:
            self._went = True
            return True
        if not self.main:
            return False
        if self._wish != self._done:
            return True
        if leaving() and time.monotonic() >= self._again:
            self._again = time.monotonic() + AGAIN
            return True
        return False

    def check(self) -> None:
        """Raise Superseded where another group has taken the run over.

        A node cut off from the cluster gets no answer, waits here, and is ended by Ray; so it cannot write either.
        """
        if get(self.attempt, GROUP) != self.group:
            raise Superseded(f"another group of workers has taken over {self.run}")

    def saved(self) -> None:
        """The wish is fulfilled; for a remote run, once the store has what was written here."""
        if self._wish == self._done:
            return
        wish, self._done = self._wish, self._wish
        threading.Thread(target=self._confirm, args=(wish,), daemon=True).start()

    def _confirm(self, wish: str) -> None:
        if is_remote(self.run):
            _wait_for_upload(self.run)
        put(self.attempt, SAVED, wish)

    def _listen(self) -> None:
        while True:
            with suppress(Exception):  # the cluster's head may be away for a while
                self._wish = get(self.attempt, SAVE)
            time.sleep(LOOK)


def _wait_for_upload(run: str) -> None:
    from depthray.runs import download

    here = select.committed(download.working_folder(run) / select.FOLDER)[-1].name
    while True:
        with suppress(Exception):  # the store may be away; the controller does not wait for ever
            if here in download.complete_checkpoints(RemoteFolder(run)):
                return
        time.sleep(LOOK)


def leaving() -> bool:
    """Whether a node of this worker's group is about to be taken away.

    What Ray Train told this process, from where `ray.train.get_preemption_info` takes it: that one asks all workers,
    which at each step would be too dear.
    """
    try:
        from ray.train.v2._internal.execution.context import get_train_context

        return get_train_context().preemption_context.preemption_info is not None
    except (ImportError, AttributeError, RuntimeError):
        return False


def live_on_after_sigterm() -> None:
    """On SIGTERM, let this process save and live on for GRACE seconds; a second one ends it as before."""
    if threading.current_thread() is not threading.main_thread():
        return
    before: Any = signal.getsignal(signal.SIGTERM)

    def take_leave(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, before)
        _terminated.set()
        timer = threading.Timer(GRACE, os.kill, args=(os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, take_leave)
