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

from depthray.checkpoints import manifest, remote_checkpoints, select
from depthray.errors import CheckpointError
from depthray.runs.layout import (
    CHECKPOINTS,
    GAIN_FRAMES,
    GAIN_JSON,
    GAIN_TABLE,
    MODEL_CARD,
    PROGRESS,
    RESULTS_PICTURE,
    RESULTS_TABLE,
    STOP,
    TENSORBOARD,
    UPLOADING,
)
from depthray.storage.remote import RemoteFolder, StorageError
from depthray.storage.retry import Retry

_EVERY = 1.0  # seconds between looks for new files
_STOP_EVERY = 3.0  # seconds between looks for a remote STOP file
_BYTES_PER_SECOND = 200_000  # at most, for files that are uploaded again as they grow: progress, TensorBoard


class Uploader:
    """Keeps a remote run like its working folder until it is closed. `error` is set when retries are over."""

    def __init__(self, run: RemoteFolder, working: Path, log: Callable[[str], None], *, retry_seconds: float) -> None:
        # Not retried by the folder: the threads below retry, log it, and can be hurried.
        self.run, self.working, self.log = RemoteFolder(run.url, retry_seconds=0), working, log
        self.retry_seconds = retry_seconds
        self.error: StorageError | None = None
        self._closing = threading.Event()
        self._aborted = False
        self._remote: set[str] | None = None  # complete checkpoints on the store, once they have been listed
        self._local: set[str] = set()  # checkpoints seen here: those that are gone were pruned
        self._uploaded: dict[str, tuple[int, int]] = {}  # size and time of change of the other files when uploaded
        self._due: dict[str, float] = {}
        self._looked = 0.0
        # Progress and curves are retried without end while training continues: they are not worth ending a run.
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
        """Upload the rest, or with `wait=False` leave it. Raises the StorageError that ended uploading."""
        self._closing.set()
        for retry in self._retries:
            retry.seconds = self.retry_seconds
        if not wait:
            self._abort()
        try:
            for thread in self._threads:
                # An upload cannot be interrupted, but a daemon thread ends with the process.
                thread.join(None if wait else 2.0)
        except KeyboardInterrupt:
            self._abort()
            raise
        if self.error and wait:
            raise self.error

    def _abort(self) -> None:
        """End both threads at once, whatever is not uploaded yet."""
        self._aborted = True
        for retry in self._retries:
            retry.hurry()

    def _retry(self, seconds: float) -> Retry:
        return Retry(
            seconds,
            is_transient=lambda error: isinstance(error, StorageError | CheckpointError | OSError),
            log=self.log,
            describe=_without_advice,
        )

    def _repeat(self, work: Callable[[], None], retry: Retry) -> None:
        """Call `work` every second until closed; `error` is set where a failure outlasts the retries."""
        try:
            while not self._aborted:
                closing = self._closing.is_set()
                retry.run(lambda: None if self._aborted else work())
                if closing:
                    return
                self._closing.wait(_EVERY)
        except Exception as error:  # bugs too: a run must not go without uploads unnoticed
            if self._aborted:
                return
            self.error = self.error or self._final(error)
            if not retry.is_transient(error):
                raise

    def _final(self, error: Exception) -> StorageError:
        # The reason alone: errors of a store read "URL: cannot VERB it: REASON".
        why, here = _without_advice(error).split(" it: ")[-1], socket.gethostname()
        return StorageError(
            f"{self.run.url}: could not be written for {self.retry_seconds:.0f} s ({why}); the run is intact in "
            f"{self.working} on {here}: fix the storage, then resume with --resume on that machine"
        )

    def _checkpoints(self) -> None:
        """Upload new checkpoints, the newest first, remove pruned ones, and download what another machine left."""
        if self._remote is None:
            self._remote = set(remote_checkpoints.complete_checkpoints(self.run))
        while not self._aborted:
            here = [path.name for path in select.committed(self.working / CHECKPOINTS)]
            self._local.update(here)
            new = [name for name in here if name not in self._remote]
            if new:
                self._upload(new[-1])  # meanwhile there may be a newer one
            self._remove_pruned(self._remote)
            if not new:
                break
        if (old := self._remote - self._local) and not self._closing.is_set():
            self._download(select.sort_names([*old])[-1])

    def _remove_pruned(self, remote: set[str]) -> None:
        """Remove from the store what was pruned here, but never the newest there."""
        here = {path.name for path in select.committed(self.working / CHECKPOINTS)}
        for name in sorted((remote & self._local) - here - {*select.sort_names([*remote])[-1:]}):
            folder = self.run / CHECKPOINTS
            folder.remove(f"{name}/{manifest.NAME}")  # first, so that a half-removed one is never seen
            folder.remove(name)
            remote.discard(name)

    def _remote_names(self) -> set[str]:
        return self._remote if self._remote is not None else set()

    def _upload(self, name: str) -> None:
        links = self.working / UPLOADING / name
        if not _link(self.working / CHECKPOINTS / name, links):
            return  # pruned just now
        try:
            upload_checkpoint(self.run, links)
        finally:
            shutil.rmtree(links, ignore_errors=True)
        self._remote_names().add(name)

    def _download(self, name: str) -> None:
        """Download an older checkpoint of the run, so that it is ranked and pruned with the others."""
        try:
            remote_checkpoints.download_checkpoint(self.run, self.working, name)
            self._local.add(name)
        except CheckpointError as error:
            self.log(f"{error}; it is left as it is")
            self._remote_names().discard(name)

    def _logs(self) -> None:
        """Upload progress and curves where they have grown, and look for a remote STOP file."""
        now = time.monotonic()
        if now - self._looked >= _STOP_EVERY:
            self._looked = now
            if self.run.size(STOP) is not None:
                (self.working / STOP).touch()
        records = [
            self.working / name
            for name in (PROGRESS, RESULTS_TABLE, RESULTS_PICTURE, MODEL_CARD, GAIN_JSON, GAIN_TABLE, GAIN_FRAMES)
        ]
        for path in [*records, *sorted((self.working / TENSORBOARD).glob("*"))]:
            name = str(path.relative_to(self.working))
            if path.is_file() and (now >= self._due.get(name, 0.0) or self._closing.is_set()):
                self._upload_grown(name, path)

    def _upload_grown(self, name: str, path: Path) -> None:
        status = path.stat()
        # Not by its contents, which would have to be read every second.
        if self._uploaded.get(name) == (status.st_size, status.st_mtime_ns):
            return
        self.run.upload(name, path)
        self._uploaded[name] = (status.st_size, status.st_mtime_ns)
        self._due[name] = time.monotonic() + _EVERY + status.st_size / _BYTES_PER_SECOND


def upload_checkpoint(run: RemoteFolder, checkpoint_folder: Path) -> None:
    """Upload a checkpoint, its manifest last; files of an upload that was cut short are overwritten."""
    target = run / CHECKPOINTS / checkpoint_folder.name
    target.remove(manifest.NAME)  # else the half-overwritten checkpoint would count as complete
    names = sorted(path.name for path in checkpoint_folder.iterdir() if path.name != manifest.NAME)
    for name in [*names, manifest.NAME]:
        target.upload(name, checkpoint_folder / name)


def _link(folder: Path, links: Path) -> bool:
    """Hard links to the files of a checkpoint, which stay when it is pruned; False if it is gone."""
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
