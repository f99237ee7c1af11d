"""Workers that come and go: what a group of workers receives from the cluster while it trains.

The workers, Ray Train's controller (`cluster.scaling_policy`) and lost workers that still run communicate through the
cluster's key-value store, the one place that a node cut off from the others cannot reach.
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

from cluster import ray_private
from depthray.checkpoints import remote_checkpoints, select
from depthray.runs import download, layout
from depthray.storage.remote import RemoteFolder, is_remote
from depthray.training.state import Hooks

NAMESPACE = b"depthray-groups"  # in the key-value store
# Keys: the group that trains, the latest save request, the save request that was last fulfilled.
GROUP, SAVE, SAVED = "group", "save", "saved"
POLL_SECONDS = 1.0  # between looks for a save request
SAVE_INTERVAL_SECONDS = 15.0  # between save points while a node of the group is about to be removed
GRACE_SECONDS = 20.0  # a worker runs on for so long after SIGTERM, if it is not killed

_terminated = threading.Event()  # this process got SIGTERM


class Superseded(RuntimeError):
    """This worker was given up and another group trains in its place. No DepthrayError: that would end the run."""


def put_value(attempt: str, key: str, value: str) -> None:
    """Publish a value to the other processes of an attempt."""
    ray_private.put_value(NAMESPACE, f"{attempt}/{key}", value, overwrite=True)


def get_value(attempt: str, key: str) -> str:
    """The value published last, "" if there was none."""
    return ray_private.get_value(NAMESPACE, f"{attempt}/{key}")


class WorkerWatch:
    """What a worker receives: a preemption notice, SIGTERM, a save request before a resize."""

    def __init__(self, attempt: str, run: str, *, main: bool) -> None:
        self.attempt, self.run, self.main = attempt, run, main
        self.group = secrets.token_hex(8)
        self._request = self._fulfilled = ""  # ids of save requests: received last, and on disk
        self._next_save = 0.0  # of those that a preemption notice causes
        self._sigterm_reported = False
        if main:
            put_value(attempt, GROUP, self.group)
            self._request = self._fulfilled = get_value(attempt, SAVE)  # of the group before this one
            threading.Thread(target=self._poll_requests, name="depthray-watch", daemon=True).start()

    def hooks(self) -> Hooks:
        """Callbacks for the training loop."""
        return Hooks(save_requested=self.save_requested, before_save=self.check_group, saved=self.confirm_save)

    def save_requested(self) -> bool:
        """Whether to save now. Rank 0 answers for requests that reach all; SIGTERM reaches one process only."""
        if _terminated.is_set() and not self._sigterm_reported:
            self._sigterm_reported = True
            return True
        if not self.main:
            return False
        if self._request != self._fulfilled:
            return True
        if ray_private.is_node_preempted() and time.monotonic() >= self._next_save:
            self._next_save = time.monotonic() + SAVE_INTERVAL_SECONDS
            return True
        return False

    def check_group(self) -> None:
        """Raise Superseded where another group has taken the run over.

        A node cut off from the cluster gets no answer, waits here, and is ended by Ray; so it cannot write either.
        """
        if get_value(self.attempt, GROUP) != self.group:
            raise Superseded(f"another group of workers has taken over {self.run}")

    def confirm_save(self) -> None:
        """Publish that the save request is fulfilled; for a remote run, once the store has the checkpoint."""
        if self._request == self._fulfilled:
            return
        request, self._fulfilled = self._request, self._request
        # In a thread, as an upload may take minutes and training must not wait for it.
        threading.Thread(target=self._publish_saved, args=(request,), daemon=True).start()

    def _publish_saved(self, request: str) -> None:
        if is_remote(self.run):
            _wait_for_upload(self.run)
        put_value(self.attempt, SAVED, request)

    def _poll_requests(self) -> None:
        while True:
            with suppress(Exception):  # the cluster's head may be unreachable for a while
                self._request = get_value(self.attempt, SAVE)
            time.sleep(POLL_SECONDS)


def _wait_for_upload(run: str) -> None:
    newest = select.committed(download.working_folder(run) / layout.CHECKPOINTS)[-1].name
    while True:
        with suppress(Exception):  # the store may be unreachable; the controller does not wait for ever
            if newest in remote_checkpoints.complete_checkpoints(RemoteFolder(run)):
                return
        time.sleep(POLL_SECONDS)


def delay_sigterm() -> None:
    """On SIGTERM, let this process run on for GRACE_SECONDS so that it can save; a second one ends it as before."""
    if threading.current_thread() is not threading.main_thread():
        return
    previous: Any = signal.getsignal(signal.SIGTERM)

    def start_timer(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, previous)
        _terminated.set()
        timer = threading.Timer(GRACE_SECONDS, os.kill, args=(os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, start_timer)
