"""Storage that fails on order: file systems of their own, mounted for it (needs root), and an S3 server."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from object_store import Store

MEGABYTES = 160


class Storage(Protocol):
    """Something a run lies on."""

    def fail(self, how: str) -> None: ...

    def mend(self) -> None: ...


class Disk:
    """An ext4 file system in a file, mounted at `folder`.

    It fails as disks and file servers do: `read-only` (all writes are refused, those so far are kept), `lost writes`
    (refused, and what was not synced is gone when it comes back), `hang` (writes wait), `unmounted` (no name is there).
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.how, self.copies = folder, "", 0

    def __enter__(self) -> Disk:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(MEGABYTES << 20)
        _command("mkfs.ext4", "-q", str(self._image))
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        if self.how == "hang":
            self.mend()
        if self.how != "unmounted":
            _command("umount", "-l", str(self.folder))
        for path in self.folder.parent.glob(f"{self.folder.name}.image*"):
            path.unlink()

    @property
    def _image(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.image{self.copies}")

    def _mount(self) -> None:
        _command("mount", "-o", "loop", str(self._image), str(self.folder))

    def fail(self, how: str) -> None:
        self.how = how
        if how == "hang":
            _command("fsfreeze", "-f", str(self.folder))
        elif how == "unmounted":
            _command("umount", "-l", str(self.folder))
        else:  # a plain read-only remount is refused while files are open for writing
            if how == "read-only":
                _command("sync", "-f", str(self.folder))
            _command("mount", "-o", "remount,abort", str(self.folder))

    def mend(self) -> None:
        """Bring it back. After read-only that is a copy, mounted in its place: processes may hold the old one open."""
        how, self.how = self.how, ""
        if how == "hang":
            _command("fsfreeze", "-u", str(self.folder))
        if how in ("", "hang"):
            return
        if how != "unmounted":
            _command("umount", "-l", str(self.folder))
            before = self._image
            self.copies += 1
            _command("cp", "--sparse=always", str(before), str(self._image))
        self._mount()


class Small:
    """A small file system in memory that fills up: a ballast file takes all that is free, and all that gets free."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ballast = folder, folder / "ballast"
        self._filling = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Small:
        self.folder.mkdir(parents=True, exist_ok=True)
        _command("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        self.mend()
        _command("umount", "-l", str(self.folder))

    def fail(self, how: str) -> None:
        self._filling.set()
        self._fill()
        self._thread = threading.Thread(target=self._keep_full, daemon=True)
        self._thread.start()

    def mend(self) -> None:
        self._filling.clear()
        if self._thread:
            self._thread.join()
            self._thread = None
        self.ballast.unlink(missing_ok=True)

    def _keep_full(self) -> None:
        while self._filling.is_set():
            self._fill()
            time.sleep(0.02)

    def _fill(self) -> None:
        with self.ballast.open("ab", buffering=0) as file:
            for piece in (1 << 20, 4096):
                try:
                    while file.write(bytes(piece)) == piece:
                        pass
                except OSError:
                    continue  # full for pieces of that size


class Bucket(Store):
    """An S3 server that fails: `refused` (no connection), `500` (errors), `slow` (answers come too late, as errors)."""

    def __init__(self) -> None:
        super().__init__()
        self.how = ""
        self.app: Any = None

    def start(self) -> None:
        super().start()
        self.app, self.server.app = self.server.app, self._answer

    def fail(self, how: str) -> None:
        self.how = how
        if how == "refused":
            self.stop()

    def mend(self) -> None:
        how, self.how = self.how, ""
        if how == "refused":
            self.start()

    def _answer(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if not self.how:
            answer: Iterable[bytes] = self.app(environ, respond)
            return answer
        while self.how == "slow":
            time.sleep(0.1)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        respond("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]


def check_rights() -> None:
    """Raise PermissionError where file systems cannot be mounted."""
    if os.geteuid():
        raise PermissionError("file systems that fail are mounted for it: run this as root, or leave out those kinds")


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
