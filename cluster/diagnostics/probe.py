"""What `depthray doctor --address` asks each node. Imports the standard library only, as a node may lack the rest.

Ray ships this module by value, so that it also runs where depthray is not installed.
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

from depthray.training import preflight

PACKAGES = ("ray", "torch", "depthray")
SHARED = "/dev/shm"
_WHO = "doctor-"  # how the names of the files begin that are written to try a storage


class Probe:
    """Lives on one node while it is looked at. Ray makes an actor of it."""

    def __init__(self) -> None:
        self._listening: socket.socket | None = None

    def clock(self) -> float:
        """Seconds since 1970, of this node."""
        return time.time()

    def facts(self, folder: str) -> dict[str, Any]:
        """Versions, and the room of shared memory and of the disk under a folder, in bytes."""
        disk = shutil.disk_usage(next(path for path in (Path(folder), *Path(folder).parents) if path.exists()))
        shared = shutil.disk_usage(SHARED) if Path(SHARED).is_dir() else None
        return {
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
            "shared": (shared.free, shared.total) if shared else None,
            "disk": (disk.free, disk.total),
        }

    def listen(self, host: str) -> int:
        """Listen on a free port of this node, and say which."""
        self._listening = socket.create_server((host, 0))
        return int(self._listening.getsockname()[1])

    def hush(self) -> None:
        """Listen no more."""
        if self._listening:
            self._listening.close()

    def reach(self, host: str, port: int) -> str:
        """What keeps this node from a port of another; nothing if it is reached."""
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            return str(error)
        return ""

    def ask(self, url: str) -> int:
        """The status with which an address answers whoever has no token; 0 where nothing answers."""
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def write(self, where: str, name: str) -> str:
        """Write a file into the storage and read it again; what went wrong, if something did."""
        data = f"{name} {time.time()}".encode()

        def try_it() -> None:
            _put(where, _WHO + name, data)
            if _get(where, _WHO + name) != data:
                raise OSError("read back other than written")

        return _failure(try_it)

    def read(self, where: str, name: str) -> str:
        """What keeps this node from reading what another wrote."""
        return _failure(lambda: _get(where, _WHO + name))

    def remove(self, where: str, name: str) -> str:
        """Take the file away."""
        return _failure(lambda: _remove(where, _WHO + name))


def step(gpu: bool) -> str:
    """Train the demo's network for one step; what went wrong, if anything. A task of its own."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

    def try_it() -> None:
        import torch

        from depthray.training.frames import Frames
        from depthray.training.loop import fit
        from depthray.training.state import begin

        if gpu and not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} can use no GPU here")
        small = ["data.frames=40", "data.size=32,32", "data.workers=0", "train.batch_size=4"]
        recipe = preflight.load("demo", small)
        state = begin(recipe, torch.device("cuda" if gpu else "cpu"), pretrained=False)
        next(fit(recipe, state, Frames.open(recipe)))

    return _failure(try_it)


def _version(name: str) -> str:
    try:
        return metadata.version(name).split("+")[0]  # "2.15.0+cpu" is a build of 2.15.0
    except metadata.PackageNotFoundError:
        return "not installed"


def _failure(act: Callable[[], Any]) -> str:
    """Why an act fails, in one line; nothing where it does not."""
    try:
        act()
    except Exception as error:  # of whatever kind: it is told, not handled
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return ""


def _folder(where: str) -> Any:
    from depthray.storage.remote import RemoteFolder

    return RemoteFolder(where, retry_seconds=5)


def _put(where: str, name: str, data: bytes) -> None:
    if "://" in where:
        _folder(where).write(name, data)
        return
    Path(where).mkdir(parents=True, exist_ok=True)
    with Path(where, name).open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def _get(where: str, name: str) -> bytes:
    return bytes(_folder(where).read(name)) if "://" in where else Path(where, name).read_bytes()


def _remove(where: str, name: str) -> None:
    if "://" in where:
        _folder(where).remove(name)
    else:
        Path(where, name).unlink(missing_ok=True)
