"""Groups of processes joined the way torchrun announces them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import hangs
from paths import ROOT

# All processes are copies of one that has imported what training needs: importing it takes each of them 5 seconds.
# Their strings hash alike, unlike those of processes under torchrun; tests/cluster/test_elastic.py has such a group.
IMPORTED = [
    *("depthray.cli.train", "depthray.runs.run", "albumentations", "timm", "torch._dynamo", "torch.utils.tensorboard"),
]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(IMPORTED)


def launch(code: str, processes: int, *argv: str) -> None:
    """Run code in a group of processes, announced by torchrun's variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with TemporaryDirectory() as folder:
        outputs = [Path(folder, str(rank)) for rank in range(processes)]
        started = [
            PROCESSES.Process(
                target=_run, args=(code, argv, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, output)
            )
            for rank, output in enumerate(outputs)
        ]
        try:
            for process in started:
                process.start()
            hangs.until(lambda: not any(process.is_alive() for process in started))
        except hangs.Hang as hang:
            raise hangs.Hang("\n".join([str(hang), *(output.read_text() for output in outputs)])) from None
        finally:
            for process in started:
                if process.pid:
                    process.kill()
        assert all(process.exitcode == 0 for process in started), "\n".join(output.read_text() for output in outputs)


def _run(code: str, argv: tuple[str, ...], environment: dict[str, str], output: Path) -> None:
    """Become `python -c code argv...` with its output in a file."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *argv]
    exec(compile(code, "<launched>", "exec"), {"__name__": "__main__"})  # noqa: S102
