"""Background upload of a run to remote storage, by two threads of rank 0 while it trains.

The manifest of a checkpoint is uploaded last, so that a remote one is complete or invisible. A store that fails is
tried again for `retry_seconds`; then the run ends, and its last checkpoint is intact here and there.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from depthray.checkpoints import manifest, select
from depthray.errors import CheckpointError
from depthray.runs import download
from depthray.runs.layout import CHECKPOINTS, PROGRESS, STOP, TENSORBOARD, UPLOADING
from depthray.storage.remote import RemoteFolder, StorageError
from depthray.storage.retry import Retry

_EVERY = 1.0  # seconds between looks at what is new
_STOP_EVERY = 3.0  # seconds between looks for a remote STOP file
_BYTES_PER_SECOND = 200_000  # of files sent again as they grow, at most: progress, TensorBoard


class Uploader:
    """Keeps a remote run like its working folder until it is closed. `error` is set when retries are over."""

    def __init__(self, run: RemoteFolder, working: Path, say: Callable[[str], None], *, retry_seconds: float) -> None:
        self.run, self.working, self.say = RemoteFolder(run.url, retry_seconds=0), working, say
        self.retry_seconds = retry_seconds
        self.error: StorageError | None = None
        self._closing = threading.Event()
        self._leaving = False  # at once, whatever is not copied yet
        self._there: set[str] | None = None  # checkpoints known to be complete on the store, once it was asked
        self._mine: set[str] = set()  # checkpoints that lay here at some time: gone from here, they were pruned
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of change of the other files as they were sent
        self._due: dict[str, float] = {}
        self._looked = 0.0
        # Progress and curves are tried without end while training goes on: a run does not end for want of them.
        retries = {self._checkpoints: self._retry(retry_seconds), self._logs: self._retry(math.inf)}
        self._retries = list(retries.values())
        self._threads = [
            threading.Thread(target=self._repeat, args=pair, name=f"depthray-upload-{pair[0].__name__}")
            for pair in retries.items()
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def close(self, *, wait: bool = True) -> None:
        """Copy what is left, or with `wait=False` leave it. Raises the StorageError that ended copying."""
        self._closing.set()
        for retry in self._retries:
            retry.seconds = self.retry_seconds
        if not wait:
            self._leave()
        try:
            for thread in self._threads:
                thread.join(None if wait else 2.0)
        except KeyboardInterrupt:
            self._leave()
            raise
        if self.error and wait:
            raise self.error

    def _leave(self) -> None:
        """End both threads at once, whatever is not copied yet."""
        self._leaving = True
        for retry in self._retries:
            retry.hurry()

    def _retry(self, seconds: float) -> Retry:
        return Retry(
            seconds,
            is_transient=lambda error: isinstance(error, StorageError | CheckpointError | OSError),
            log=self.say,
            describe=_without_advice,
        )

    def _repeat(self, work: Callable[[], None], retry: Retry) -> None:
        """Work again and again until it is closed; `error` is set where a failure outlasts the retries."""
        try:
            while not self._leaving:
                closing = self._closing.is_set()
                retry.run(lambda: None if self._leaving else work())
                if closing:
                    return
                self._closing.wait(_EVERY)
        except Exception as error:  # one of depthray's own too: a run must not go without copies unnoticed
            if self._leaving:
                return
            self.error = self.error or self._final(error)
            if not retry.is_transient(error):
                raise

    def _final(self, error: Exception) -> StorageError:
        why, here = _without_advice(error).split(" it: ")[-1], socket.gethostname()
        return StorageError(
            f"{self.run.url}: could not be written for {self.retry_seconds:.0f} s ({why}); the run is intact in "
            f"{self.working} on {here}: fix the storage, then resume with --resume on that machine"
        )

    def _checkpoints(self) -> None:
        """Send new checkpoints, the newest first, remove pruned ones, and fetch one that a machine before left."""
        if self._there is None:
            self._there = set(download.complete_checkpoints(self.run))
        while not self._leaving:
            here = [path.name for path in select.committed(self.working / CHECKPOINTS)]
            self._mine.update(here)
            new = [name for name in here if name not in self._there]
            if new:
                self._send(new[-1])  # meanwhile there may be a newer one
            self._remove_pruned(self._there)
            if not new:
                break
        if (old := self._there - self._mine) and not self._closing.is_set():
            self._fetch(select.sort_names([*old])[-1])

    def _remove_pruned(self, there: set[str]) -> None:
        """Remove there what is gone from here, but never the newest there."""
        here = {path.name for path in select.committed(self.working / CHECKPOINTS)}
        for name in sorted((there & self._mine) - here - {*select.sort_names([*there])[-1:]}):
            folder = self.run / CHECKPOINTS
            folder.remove(f"{name}/{manifest.NAME}")  # first, so that a half-removed one is never seen
            folder.remove(name)
            there.discard(name)

    def _known(self) -> set[str]:
        return self._there if self._there is not None else set()

    def _send(self, name: str) -> None:
        links = self.working / UPLOADING / name
        if not _link(self.working / CHECKPOINTS / name, links):
            return  # pruned at this moment
        try:
            upload_checkpoint(self.run, links)
        finally:
            shutil.rmtree(links, ignore_errors=True)
        self._known().add(name)

    def _fetch(self, name: str) -> None:
        """Bring an older checkpoint of the run here, so that it is ranked and pruned with the others."""
        try:
            download.download_checkpoint(self.run, self.working, name)
            self._mine.add(name)
        except CheckpointError as error:
            self.say(f"{error}; it is left as it is")
            self._known().discard(name)

    def _logs(self) -> None:
        """Send progress and curves where they have grown, and look for a wish to stop."""
        now = time.monotonic()
        if now - self._looked >= _STOP_EVERY:
            self._looked = now
            if self.run.size(STOP) is not None:
                (self.working / STOP).touch()
        for path in [self.working / PROGRESS, *sorted((self.working / TENSORBOARD).glob("*"))]:
            name = str(path.relative_to(self.working))
            if path.is_file() and (now >= self._due.get(name, 0.0) or self._closing.is_set()):
                self._send_grown(name, path)

    def _send_grown(self, name: str, path: Path) -> None:
        status = path.stat()
        if self._sent.get(name) == (status.st_size, status.st_mtime_ns):
            return
        self.run.upload(name, path)
        self._sent[name] = (status.st_size, status.st_mtime_ns)
        self._due[name] = time.monotonic() + _EVERY + status.st_size / _BYTES_PER_SECOND


def upload_checkpoint(run: RemoteFolder, checkpoint_folder: Path) -> None:
    """Upload a checkpoint, its manifest last; what an upload cut short left there is overwritten."""
    target = run / CHECKPOINTS / checkpoint_folder.name
    target.remove(manifest.NAME)
    names = sorted(path.name for path in checkpoint_folder.iterdir() if path.name != manifest.NAME)
    for name in [*names, manifest.NAME]:
        target.upload(name, checkpoint_folder / name)


def _link(folder: Path, links: Path) -> bool:
    """Second names for the files of a checkpoint, which outlive it; False if it is gone."""
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    try:
        for path in folder.iterdir():
            try:
                os.link(path, links / path.name)
            except PermissionError:  # a file system without links
                shutil.copy2(path, links / path.name)
    except FileNotFoundError:
        return False
    return (links / manifest.NAME).is_file()


def _without_advice(error: BaseException) -> str:
    """An error of a store without its advice, which is for a command that ends, not for a run that waits."""
    return str(error).split("; look at the network")[0]
