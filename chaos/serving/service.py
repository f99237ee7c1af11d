"""`depthray serve` as a process of its own, for scripts that harm it: its processes, its faults and its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from chaos import ROOT

TITLES = {
    "model": "ray::ServeReplica:depth:Depth",
    "ingress": "ray::ServeReplica:depth:Ingress",
    "proxy": "ray::ProxyActor",
    "controller": "ray::ServeController",
}
HEAD = {"gcs": "/gcs/gcs_server", "raylet": "/raylet/raylet"}
FAULTS = "DEPTHRAY_FAULTS"  # the file that injected/sitecustomize.py reads
# Little work on a small machine, and short waits: for promotions, and for clients that upload slowly.
SMALL_SETTINGS = ("model.threads=1", "model.poll_seconds=0.2", "limits.upload_seconds=5")


class Reply(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes
    headers: dict[str, str]


class Service:
    """A running service with its own Ray, its own store, and its own token for Ray."""

    def __init__(
        self,
        port: int,
        *overrides: str,
        make_run: Callable[[Path], Path] | None = None,
        faults: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))  # short: names of sockets have 107 bytes at most
        self.port, self.store, self.log = port, self.folder / "served", self.folder / "log"
        self.faults = self.folder / "faults"
        self.run = (make_run or checkpoint)(self.folder / "first")
        self._overrides = overrides
        self._environment = {
            **os.environ,
            "RAY_TMPDIR": str(self.folder),  # Ray's files and sockets apart from those of other clusters
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "OMP_NUM_THREADS": "1",
        }
        if faults is not None:
            self.inject(**faults)
            self._environment |= {"PYTHONPATH": str(Path(__file__).parent / "injected"), FAULTS: str(self.faults)}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Service:
        command = [sys.executable, "-m", "depthray", "serve", str(self.run), *SMALL_SETTINGS, *self._overrides]
        command += ["--store", str(self.store), "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until(self.is_ready, 300, "the service is ready")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def request(
        self,
        path: str = "/v1/depth?format=npy",
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Reply:
        """One request on a connection of its own: POST where there is a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST" if body else "GET", path, body=body or None, headers=dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether it would answer. RuntimeError if its process has ended."""
        assert self.process
        if self.process.poll() is not None:
            raise RuntimeError(f"depthray serve ended with {self.process.returncode}:\n{self.log.read_text()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("/v2/health/ready", timeout=5).status == 200
        return False

    def pids(self, role: str = "") -> list[int]:
        """The processes of a role, or all below the service."""
        assert self.process
        pids = _descendants(self.process.pid)
        title = {**TITLES, **HEAD}.get(role, "")
        return [pid for pid in pids if title in _title(pid).split("\0")[0]]

    def kill(self, role: str) -> int:
        """SIGKILL the process, or one of them, of a role; returns its id."""
        pid = self.pids(role)[0]
        os.kill(pid, signal.SIGKILL)
        return pid

    def inject(self, **faults: Any) -> None:
        """Have networks fail from now on as injected/sitecustomize.py describes; without arguments no longer."""
        temporary = self.faults.with_suffix(".new")
        temporary.write_text(json.dumps(faults))
        temporary.replace(self.faults)

    def terminate(self) -> None:
        """Send SIGTERM, as init systems do."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop it as its user would, then kill what is left."""
        assert self.process
        left = self.pids()
        if self.process.poll() is None:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(90)
        self._end(left)

    def _end(self, left: list[int] | None = None) -> None:
        assert self.process
        # `left` was listed before: processes whose parent has ended are no descendants any more.
        for pid in [*(left or []), *self.pids(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                if str(self.folder) in _environment(pid) or pid == self.process.pid:  # an id may be another's by now
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def driver(self) -> Any:
        """This process as a second driver of the service's Ray."""
        session = self.folder / "ray" / "session_latest"
        address = _option(self.pids(), "--gcs-address=")
        before = dict(os.environ)
        os.environ.update({key: self._environment[key] for key in ("RAY_TMPDIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")})
        os.environ["RAY_SERVE_LOG_TO_STDERR"] = "0"
        import logging

        import ray

        assert session.exists()
        ray.init(address, namespace="serve", log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()
            os.environ.clear()  # exactly as before: the next service has another token
            os.environ.update(before)


def checkpoint(folder: Path, *overrides: str, **options: Any) -> Path:
    """A run of an untrained network; see serve_networks of the tests."""
    from serve_networks import write_checkpoint

    return write_checkpoint(folder, *overrides, **options).parents[1]


def png_image(height: int = 48, width: int = 64) -> bytes:
    """A small PNG."""
    import cv2
    from serve_networks import photograph

    return cv2.imencode(".png", photograph(height, width)[..., ::-1])[1].tobytes()


def wait_until(true: Callable[[], Any], seconds: float, what: str, *, pause: float = 0.1) -> float:
    """Wait until something is true; the seconds it took. TimeoutError if it is not in time."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
    return time.monotonic() - began


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])  # names of processes may contain parentheses
            children.setdefault(parent, []).append(int(entry.parent.name))
    descendants, unvisited = [], [root]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        descendants += below
        unvisited += below
    return descendants


def _title(pid: int) -> str:
    return _read(pid, "cmdline")


def _environment(pid: int) -> str:
    return _read(pid, "environ")


def _option(pids: list[int], prefix: str) -> str:
    """The value of a flag in the command line of the first process that has it."""
    flags = [flag for pid in pids for flag in _title(pid).split("\0") if flag.startswith(prefix)]
    return flags[0].removeprefix(prefix)


def _read(pid: int, what: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace")
    return ""
