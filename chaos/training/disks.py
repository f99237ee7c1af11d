"""Storage that fails on request: file systems of its own, mounted for it (needs root), and an S3 server."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from object_store import Store

MEGABYTES = 160  # of a disk: several checkpoints of these runs


class Storage(Protocol):
    """Storage that holds a run."""

    def fail(self, fault: str) -> None: ...

    def repair(self) -> None: ...


class Disk:
    """An ext4 file system in a file, mounted at `folder`.

    It fails as disks and file servers do: `read-only` (all writes are refused, those so far are kept), `lost writes`
    (refused, and what was not synced is gone when it comes back), `hang` (writes wait), `unmounted` (no name is there).
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.fault, self.copies = folder, "", 0

    def __enter__(self) -> Disk:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(MEGABYTES << 20)
        _run("mkfs.ext4", "-q", str(self._image))  # its journal can be aborted, which is how disks fail below
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        if self.fault == "hang":
            self.repair()
        if self.fault != "unmounted":
            _run("umount", "-l", str(self.folder))
        for path in self.folder.parent.glob(f"{self.folder.name}.image*"):
            path.unlink()

    @property
    def _image(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.image{self.copies}")

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.folder))

    def fail(self, fault: str) -> None:
        self.fault = fault
        if fault == "hang":
            _run("fsfreeze", "-f", str(self.folder))
        elif fault == "unmounted":
            _run("umount", "-l", str(self.folder))  # lazily, as processes hold files there open
        else:  # a plain read-only remount is refused while files are open for writing
            if fault == "read-only":
                _run("sync", "-f", str(self.folder))  # what is written so far stays
            _run("mount", "-o", "remount,abort", str(self.folder))

    def repair(self) -> None:
        """End the fault. After read-only a copy is mounted instead: processes may hold the old one open."""
        fault, self.fault = self.fault, ""
        if fault == "hang":
            _run("fsfreeze", "-u", str(self.folder))
        if fault in ("", "hang"):
            return
        if fault != "unmounted":
            _run("umount", "-l", str(self.folder))
            # An aborted file system cannot be made writable again, so a copy of its image is mounted.
            before = self._image
            self.copies += 1
            _run("cp", "--sparse=always", str(before), str(self._image))
        self._mount()


class FillingDisk:
    """A small file system in memory that fills up: a ballast file takes all that is free, and all that is freed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ballast = folder, folder / "ballast"
        self._filling = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> FillingDisk:
        self.folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        self.repair()
        _run("umount", "-l", str(self.folder))

    def fail(self, fault: str) -> None:
        self._filling.set()
        self._fill()
        self._thread = threading.Thread(target=self._keep_full, daemon=True)
        self._thread.start()

    def repair(self) -> None:
        self._filling.clear()
        if self._thread:
            self._thread.join()
            self._thread = None
        self.ballast.unlink(missing_ok=True)

    def _keep_full(self) -> None:
        while self._filling.is_set():
            self._fill()  # pruning frees space, which must not let the run continue
            time.sleep(0.02)

    def _fill(self) -> None:
        with self.ballast.open("ab", buffering=0) as file:
            for piece in (1 << 20, 4096):  # the small pieces fill what is left by the large ones
                try:
                    while file.write(bytes(piece)) == piece:
                        pass
                except OSError:
                    continue  # full for pieces of that size


class FailingStore(Store):
    """An S3 server that fails: `refused` (no connection), `500` (errors), `slow` (answers come too late, as errors)."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        self.app: Any = None

    def start(self) -> None:
        super().start()
        # Each start makes a new server, which asks our application first.
        self.app, self.server.app = self.server.app, self._answer

    def fail(self, fault: str) -> None:
        self.fault = fault
        if fault == "refused":
            self.stop()

    def repair(self) -> None:
        fault, self.fault = self.fault, ""
        if fault == "refused":
            self.start()

    def _answer(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if not self.fault:
            answer: Iterable[bytes] = self.app(environ, respond)
            return answer
        while self.fault == "slow":
            time.sleep(0.1)
        # The body is read first: else the client sees a lost connection, not this error.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        respond("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]


def check_root() -> None:
    """Raise PermissionError where file systems cannot be mounted."""
    if os.geteuid():
        raise PermissionError("file systems that fail are mounted for it: run this as root, or leave out these kinds")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
