"""What a run writes here, copied to the store where it shall lie: by two threads of rank 0, while training goes on.

Checkpoints go up whole, the manifest last, so that one there is complete or invisible. A store that fails is tried
again for `patience` seconds; then the run ends, and its last checkpoint is intact here and there.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from depthray.checkpoints import manifest, select
from depthray.checkpoints.select import FOLDER
from depthray.errors import CheckpointError
from depthray.runs import download, progress
from depthray.storage.remote import Folder, StorageError

UPLOADING = ".uploading"  # links to the files of the checkpoint under way, which may be pruned meanwhile
_EVERY = 1.0  # seconds between looks at what is new
_STOP_EVERY = 3.0  # seconds between looks for a wish to stop
_TELL_EVERY = 60.0  # seconds between notes of a failure that lasts
_BYTES_PER_SECOND = 200_000  # of files sent again as they grow, at most: progress, TensorBoard


class Mirror:
    """Keeps a remote run like its working folder until it is closed. `error` is set when patience is over."""

    def __init__(self, run: Folder, working: Path, say: Callable[[str], None], *, patience: float) -> None:
        self.run, self.working, self.say, self.patience = Folder(run.url, patience=0), working, say, patience
        self.error: StorageError | None = None
        self._closing = threading.Event()
        self._leaving = False  # at once, whatever is not copied yet
        self._there: set[str] | None = None  # checkpoints known to be complete on the store, once it was asked
        self._mine: set[str] = set()  # checkpoints that lay here at some time: gone from here, they were pruned
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of change of the other files as they were sent
        self._due: dict[str, float] = {}
        self._looked = 0.0
        self._threads = [
            threading.Thread(target=self._keep_on, args=(work, serious), name=f"depthray-mirror-{work.__name__}")
            for work, serious in ((self._checkpoints, True), (self._logs, False))
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def close(self, *, wait: bool = True) -> None:
        """Copy what is left, or with `wait=False` leave it. Raises the StorageError that ended copying."""
        self._leaving = not wait
        self._closing.set()
        try:
            for thread in self._threads:
                thread.join(None if wait else 2.0)
        except KeyboardInterrupt:
            self._leaving = True
            raise
        if self.error and wait:
            raise self.error

    def _keep_on(self, work: Callable[[], None], serious: bool) -> None:
        """Work again and again until it is closed; after `patience` seconds of failures serious work is given up."""
        trouble: _Trouble | None = None
        while not self._leaving:
            closing = self._closing.is_set()
            try:
                work()
            except (StorageError, CheckpointError, OSError) as error:
                trouble = trouble or _Trouble(self.say)
                trouble.add(error)
                if trouble.seconds >= self.patience and (serious or closing):
                    self.error = self.error or self._final(error)
                    return
            except Exception as error:  # a fault of ours must not leave a run unmirrored in silence
                self.error = self.error or self._final(error)
                raise
            else:
                if trouble:
                    trouble.over()
                    trouble = None
                if closing:
                    return
            self._pause(trouble.pause if trouble else _EVERY)

    def _pause(self, seconds: float) -> None:
        """Wait; closing ends a wait for new things, not one for a store that fails."""
        if seconds == _EVERY:
            self._closing.wait(seconds)
            return
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._leaving:
            time.sleep(0.1)

    def _final(self, error: Exception) -> StorageError:
        why, here = _short(error).split(" it: ")[-1], socket.gethostname()
        return StorageError(
            f"{self.run.url}: could not be written for {self.patience:.0f} s ({why}); the run is intact in "
            f"{self.working} on {here}: mend the storage, then go on with --resume on that machine"
        )

    def _checkpoints(self) -> None:
        """Send new checkpoints, the newest first, remove pruned ones, and fetch one that a machine before left."""
        if self._there is None:
            self._there = set(download.complete(self.run))
        while not self._leaving:
            here = [path.name for path in select.committed(self.working / FOLDER)]
            self._mine.update(here)
            new = [name for name in here if name not in self._there]
            if new:
                self._send(new[-1])  # meanwhile there may be a newer one
            self._remove_pruned(self._there)
            if not new:
                break
        if (old := self._there - self._mine) and not self._closing.is_set():
            self._fetch(max(old, key=download.order))

    def _remove_pruned(self, there: set[str]) -> None:
        """Remove there what is gone from here, but never the newest there."""
        here = {path.name for path in select.committed(self.working / FOLDER)}
        for name in sorted((there & self._mine) - here - {max(there, key=download.order, default="")}):
            folder = self.run / FOLDER
            folder.remove(f"{name}/{manifest.NAME}")  # first, so that a half-removed one is never seen
            folder.remove(name)
            there.discard(name)

    def _known(self) -> set[str]:
        return self._there if self._there is not None else set()

    def _send(self, name: str) -> None:
        links = self.working / UPLOADING / name
        if not _link(self.working / FOLDER / name, links):
            return  # pruned at this moment
        try:
            send(self.run, links)
        finally:
            shutil.rmtree(links, ignore_errors=True)
        self._known().add(name)

    def _fetch(self, name: str) -> None:
        """Bring an older checkpoint of the run here, so that it is ranked and pruned with the others."""
        try:
            download.bring(self.run, self.working, name)
            self._mine.add(name)
        except CheckpointError as error:
            self.say(f"{error}; it is left as it is")
            self._known().discard(name)

    def _logs(self) -> None:
        """Send progress and curves where they have grown, and look for a wish to stop."""
        now = time.monotonic()
        if now - self._looked >= _STOP_EVERY:
            self._looked = now
            if self.run.size(download.STOP) is not None:
                (self.working / download.STOP).touch()
        for path in [self.working / progress.FILE, *sorted((self.working / "tensorboard").glob("*"))]:
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


class _Trouble:
    """Failures in a row, told now and then."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.since, self.count, self.told = say, time.monotonic(), 0, 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    @property
    def pause(self) -> float:
        return float(min(10.0, 0.5 * 2 ** min(self.count, 8)))

    def add(self, error: Exception) -> None:
        self.count += 1
        if self.count == 1 or time.monotonic() - self.told >= _TELL_EVERY:
            self.told = time.monotonic()
            times = "" if self.count == 1 else f"{self.count} failures in {self.seconds:.0f} s, "
            self.say(f"storage: {times}trying again while training goes on: {_short(error)}")

    def over(self) -> None:
        self.say(f"storage: works again after {self.count} failures in {self.seconds:.0f} s")


def send(run: Folder, checkpoint_folder: Path) -> None:
    """Upload a checkpoint, its manifest last; what an upload cut short left there is overwritten."""
    target = run / FOLDER / checkpoint_folder.name
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


def _short(error: Exception) -> str:
    """An error without its advice, which the one line of a run that ends gives itself."""
    return str(error).split("; look at the network")[0]
