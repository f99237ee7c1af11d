"""Two commands from nothing to depth over HTTP: `depthray train`, `depthray serve`; its metrics, and how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import hangs
import numpy as np
import pytest
from paths import ROOT
from serve_networks import photograph

import serve
from depthray.__main__ import main

SMALL = ["data.size=64,96", "data.frames=24", "model.encoder=tiny", "train.batch_size=8", "train.epochs=1"]
# What shows only once something has gone wrong or been swapped.
RARE = {"ray_depthray_faults_total", "ray_depthray_swaps_total"}


def environment(**more: str) -> dict[str, str]:
    """That of a user, without what Ray has set in this process."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | more


@dataclass
class Served:
    """A running `depthray serve`."""

    process: subprocess.Popen[str]
    port: int
    folder: Path  # of Ray's files

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self, *signals: int) -> float:
        """Send signals, SIGINT as Ctrl-C does to the whole group. Returns the seconds from the last until the end."""
        for index, number in enumerate(signals):
            time.sleep(1.0 if index else 0.0)
            (os.killpg if number == signal.SIGINT else os.kill)(self.process.pid, number)
        began = time.monotonic()
        self.process.wait(120)
        return time.monotonic() - began

    def left(self) -> list[str]:
        """The processes of its cluster that are still there."""
        mark = f"RAY_TMPDIR={self.folder}".encode()
        commands = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    commands.append((folder / "cmdline").read_bytes().decode(errors="replace")[:80])
            except OSError:
                continue
        return commands


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "demo", *SMALL, "--local", "--out", str(folder)]) == 0
    cv2.imwrite(str(folder / "room.jpg"), cv2.cvtColor(photograph(120, 90), cv2.COLOR_RGB2BGR))
    return folder


@contextmanager
def serving(run: Path, folder: Path, *settings: str, here: Path = ROOT) -> Iterator[Served]:
    """`depthray serve RUN` from when it prints that it answers, in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    ray_folder = Path(tempfile.mkdtemp(prefix="ray"))  # a short path: socket names are limited to 107 bytes
    argv = [
        "serve",
        str(run),
        "--port",
        str(port),
        "--store",
        str(folder / "served"),
        "model.poll_seconds=0.2",
        *settings,
    ]
    with (
        (folder / "stderr").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "depthray", *argv],
            # Metrics come every 10 s by default.
            env=environment(RAY_TMPDIR=str(ray_folder), RAY_metrics_report_interval_ms="1000", PYTHONPATH=str(ROOT)),
            cwd=here,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever runs these tests
        ) as process,
    ):
        try:
            assert process.stdout is not None
            is_ready = any(line.startswith("next") for line in iter(process.stdout.readline, ""))
            assert is_ready, (folder / "stderr").read_text()
            yield Served(process, port, ray_folder)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(120)
            shutil.rmtree(ray_folder, ignore_errors=True)


class Slow(threading.Thread):
    """A request whose body arrives slowly, and its reply."""

    def __init__(self, port: int, body: bytes, *, seconds: float) -> None:
        super().__init__()
        self._port, self._body, self._seconds = port, body, seconds
        self.reply = b""
        self.start()
        time.sleep(1.0)  # it has arrived in part

    def run(self) -> None:
        head = f"POST /v1/depth HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(self._body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.sendall(head.encode() + self._body[:100])
            select.select([connection], [], [], self._seconds)  # or until the server has gone
            try:
                connection.sendall(self._body[100:])
                while piece := connection.recv(65536):
                    self.reply += piece
            except OSError:
                pass


def millimetres(path: Path) -> np.ndarray:
    """A 16-bit PNG -> its whole numbers."""
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert stored is not None and stored.dtype == np.uint16 and stored.shape == (120, 90)
    return stored.astype(int)


def metrics(served: Served) -> set[str]:
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=30) as answer:
        return set(re.findall(r"^(ray_\w+)\{", answer.read().decode(), re.MULTILINE))


def on_the_dashboard() -> set[str]:
    text = (Path(serve.__file__).parent / "monitoring" / "grafana.json").read_text()
    queries = {target["expr"] for panel in json.loads(text)["panels"] for target in panel.get("targets", [])}
    return set(re.findall(r"\bray_\w+", " ".join(queries)))


def test_from_training_to_depth_in_two_commands(run: Path, tmp_path: Path) -> None:
    room, depth = run / "room.jpg", tmp_path / "depth.png"
    assert main(["predict", str(run), str(room), "--out", str(tmp_path / "here"), "--format", "png"]) == 0
    expected = millimetres(tmp_path / "here" / "room.depth.png")
    (tmp_path / "serve.py").write_text("raise SystemExit('a file of the user was imported')\n")
    with serving(run, tmp_path, here=tmp_path) as served:
        curl = f"curl --silent --show-error --fail --data-binary @{room} {served.url}/v1/depth > {depth}"
        subprocess.run(["sh", "-c", curl], check=True, timeout=60)
        assert np.abs(millimetres(depth) - expected).max() <= 1
        flags = ["--out", str(tmp_path / "there"), "--format", "png"]
        assert main(["predict", "--url", served.url, str(room), *flags]) == 0
        assert np.abs(millimetres(tmp_path / "there" / "room.depth.png") - expected).max() <= 1

        # More than the 4 MiB to which gRPC limits a message unless it is told otherwise.
        large = cv2.imencode(".jpg", cv2.resize(cv2.imread(str(room)), (1600, 1200)))[1].tobytes()
        request = urllib.request.Request(f"{served.url}/v1/depth?format=npy", data=large)
        request.add_header("Content-Type", "image/jpeg")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert np.load(io.BytesIO(answer.read())).shape == (1200, 1600)

        wanted = on_the_dashboard() - RARE
        with suppress(hangs.Hang):  # Ray's agent receives them every second
            hangs.until(lambda: wanted <= metrics(served), tick=0.5)
        assert not wanted - metrics(served)

        slow = Slow(served.port, room.read_bytes(), seconds=4.0)
        took = served.end(signal.SIGTERM)
        slow.join()
        assert slow.reply.startswith(b"HTTP/1.1 200") and b"\x89PNG" in slow.reply
        assert served.process.returncode == 0 and took < 30 and not served.left()
    said = (tmp_path / "stderr").read_text().splitlines()
    assert next(line for line in said if not line.startswith("waiting for ")).startswith("stopping")


@pytest.mark.thorough  # another start of a server
def test_a_second_ctrl_c_ends_at_once(run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path, "model.runtime=eager") as served:  # without the exports, for which it would wait
        slow = Slow(served.port, (run / "room.jpg").read_bytes(), seconds=50.0)
        took = served.end(signal.SIGINT, signal.SIGINT)
        assert took < 25 and not served.left()
        slow.join()
        assert not slow.reply.startswith(b"HTTP/1.1 200")
