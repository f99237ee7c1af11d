"""Training runs as processes that can be killed, and what is left of them: progress, workers, weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import hangs
import torch
from safetensors.torch import load_file

from chaos import ROOT
from depthray.runs import progress

OVERRIDES = [
    "demo",
    "data.size=32,64",
    "data.frames=72",
    "train.epochs=3",
    "train.batch_size=8",
    "train.save_every_steps=3",
    "train.precision=fp32",
    "train.log_seconds=0.001",  # each step is logged: the checks are about single steps
]
STEPS = 24  # 8 an epoch: of 72 frames 64 are trained on
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def start(
    run: Path | str,
    *flags: str,
    overrides: list[str] | None = None,
    launcher: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """`depthray train` as a process of its own, or under a launcher such as torchrun."""
    command = [sys.executable, *launcher, "-m", "depthray", "train", *(overrides or OVERRIDES)]
    command += ["--out", str(run), *flags]
    # One thread in all runs: sums that are split otherwise differ in their last digits.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a driver; its output, or an error if it failed."""
    output = hangs.output_of(process)
    if process.returncode:
        raise RuntimeError(f"driver exited with {process.returncode}:\n{output}")
    return output


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Return as soon as the run has logged a step at least this far."""

    def reached() -> bool:
        if any(int(str(record.get("step", -1))) >= step for record in records(run)):
            return True
        if process.poll() is not None:
            raise RuntimeError(f"the run ended before step {step}:\n{process.stdout.read() if process.stdout else ''}")
        return False

    hangs.until(reached, run, tick=0.02)


def records(run: Path) -> list[dict[str, object]]:
    """The run's progress so far."""
    return progress.read(run)


def workers(driver: int) -> list[int]:
    """Process ids of the Ray Train workers of a driver: they run in a folder whose name ends with its process id."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(os.readlink(entry / "cwd")).endswith(f"-{driver}"):
                pids.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile, or not ours to look at
    return pids


def kill(kind: str, process: subprocess.Popen[str], rng: random.Random) -> None:
    """SIGKILL what the kind names."""
    if kind == "driver":
        process.kill()
        process.communicate()
        return
    pids = workers(process.pid)
    assert pids, "no worker found to kill"
    for pid in pids if kind == "all workers" else [rng.choice(pids)]:
        os.kill(pid, signal.SIGKILL)  # no handler runs, as when a machine fails


def killed_run(run: Path, kind: str, step: int, *flags: str, rng: random.Random) -> None:
    """A run killed once at a step and run to its end."""
    process = start(run, *flags)
    wait_for_step(run, step, process)
    kill(kind, process, rng)
    if kind == "driver":
        process = start(run, *flags, "--resume")
    finish(process)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The weights of a run's last checkpoint."""
    last = max((run / "checkpoints").glob("epoch-*"), key=lambda path: path.name.split("step-")[1])
    return load_file(last / "model.safetensors")


def distance(one: Path, other: Path) -> float:
    """Largest difference between the final weights of two runs."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    return max((left[key].double() - right[key].double()).abs().max().item() for key in left)
