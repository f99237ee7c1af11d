"""Groups of processes joined the way torchrun announces them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import hangs
from paths import ROOT


def launch(code: str, processes: int, *argv: str) -> None:
    """Run code in a group of processes, announced by torchrun's variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *argv],
            cwd=ROOT,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [hangs.output_of(process) for process in started]
    assert all(process.returncode == 0 for process in started), "\n".join(outputs)
