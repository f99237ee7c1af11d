"""What `depthray doctor --address` runs on each node. Imports the standard library only, as a node may lack the rest.

Ray sends this module by value, so that it also runs where depthray is not installed.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("ray", "torch", "depthray")
SHARED = "/dev/shm"
FILE_PREFIX = "doctor-"  # of the names of files that are written to test a storage


class NodeProbe:
    """Runs on one node while it is examined. Ray makes an actor of it."""

    def __init__(self) -> None:
        self._listening: socket.socket | None = None

    def clock(self) -> float:
        """Seconds since 1970, of this node."""
        return time.time()

    def facts(self, folder: str) -> dict[str, Any]:
        """Versions, and the space of shared memory and of the disk under a folder, in bytes."""
        disk = shutil.disk_usage(next(path for path in (Path(folder), *Path(folder).parents) if path.exists()))
        shared = shutil.disk_usage(SHARED) if Path(SHARED).is_dir() else None
        return {
            "versions": {"python": platform.python_version()} | {name: installed_version(name) for name in PACKAGES},
            "shared": (shared.free, shared.total) if shared else None,
            "disk": (disk.free, disk.total),
        }

    def listen(self, host: str) -> int:
        """Listen on a free port of this node, and return it."""
        self._listening = socket.create_server((host, 0))
        return int(self._listening.getsockname()[1])

    def stop_listening(self) -> None:
        if self._listening:
            self._listening.close()

    def reach(self, host: str, port: int) -> str:
        """Why this node cannot reach a port of another; "" if it can."""
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            return str(error)
        return ""

    def http_status(self, url: str) -> int:
        """The HTTP status of a request without a token; 0 where nothing answers."""
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:  # 401 and 403 are the good answers
            return error.code
        except OSError:
            return 0

    def write(self, where: str, name: str) -> str:
        """Write a file into the storage and read it again. Returns the error, "" if there is none."""
        data = f"{name} {time.time()}".encode()

        def write_and_read() -> None:
            _put(where, FILE_PREFIX + name, data)
            if _get(where, FILE_PREFIX + name) != data:
                raise OSError("what was read differs from what was written")

        return error_line(write_and_read)

    def read(self, where: str, name: str) -> str:
        """Why this node cannot read what another wrote; "" if it can."""
        return error_line(lambda: _get(where, FILE_PREFIX + name))

    def remove(self, where: str, name: str) -> str:
        """Remove the file. Returns the error, "" if there is none."""
        return error_line(lambda: _remove(where, FILE_PREFIX + name))


def train_one_step(gpu: bool) -> str:
    """Train the demo's network for one step, as a task of its own. Returns the error, "" if there is none."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

    def train() -> None:
        import torch

        from depthray.training import preflight
        from depthray.training.frames import Frames
        from depthray.training.loop import fit
        from depthray.training.state import begin

        # PyTorch's own error does not name its version, by which a build without CUDA is recognised.
        if gpu and not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} can use no GPU here")
        # As small as possible, and without loader processes: it shows only whether training works at all.
        overrides = ["data.frames=40", "data.size=32,32", "data.workers=0", "train.batch_size=4"]
        recipe = preflight.load("demo", overrides)
        state = begin(recipe, torch.device("cuda" if gpu else "cpu"), start=False)
        next(fit(recipe, state, Frames.open(recipe)))

    return error_line(train)


def installed_version(name: str) -> str:
    """The version of an installed package, without the name of its build; "not installed" without one."""
    try:
        return metadata.version(name).split("+")[0]  # "2.15.0+cpu" is a build of 2.15.0
    except metadata.PackageNotFoundError:
        return "not installed"


def error_line(action: Callable[[], Any]) -> str:
    """The error of an action in one line; "" where it succeeds."""
    try:
        action()
    except Exception as error:  # of any kind: it is reported, not handled
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return ""


def _folder(where: str) -> Any:
    # Only where a storage is tested, as this imports depthray.
    from depthray.storage.remote import RemoteFolder

    return RemoteFolder(where, retry_seconds=5)


def _put(where: str, name: str, data: bytes) -> None:
    if "://" in where:
        _folder(where).write(name, data)
        return
    Path(where).mkdir(parents=True, exist_ok=True)
    with Path(where, name).open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())  # a full disk or quota may show only here


def _get(where: str, name: str) -> bytes:
    return bytes(_folder(where).read(name)) if "://" in where else Path(where, name).read_bytes()


def _remove(where: str, name: str) -> None:
    if "://" in where:
        _folder(where).remove(name)
    else:
        Path(where, name).unlink(missing_ok=True)
