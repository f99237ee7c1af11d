"""Kill a training run at seeded steps and compare its final weights with those of an undisturbed run.

    python tests/ray/kills.py [--points 12]

For each point a run is started with `depthray train`, killed with SIGKILL at a random step (one worker, all workers, or
the driver, which is then started again with --resume), and must end with the weights of the run left alone: equal bit
for bit on one worker, to 1e-6 on two. Prints a table and exits 1 if a row fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
WORDS = [
    "demo",
    "data.size=32,64",
    "data.frames=72",
    "train.epochs=3",
    "train.batch_size=8",
    "train.save_every_steps=3",
    "train.precision=fp32",
    "train.log_seconds=0.001",
]
STEPS = 24
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
KINDS = ("worker", "all workers", "driver")


def start(run: Path, *flags: str, words: list[str] | None = None, under: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """`depthray train` as a process of its own, or under a launcher such as torchrun."""
    command = [sys.executable, *under, "-m", "depthray", "train", *(words or WORDS), "--out", str(run), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a driver; its output, or an error if it failed."""
    output, _ = process.communicate(timeout=240)
    if process.returncode:
        raise RuntimeError(f"driver exited with {process.returncode}:\n{output}")
    return output


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Return as soon as the run has told of a step at least this far."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if any(record.get("step", -1) >= step for record in records(run)):
            return
        if process.poll() is not None:
            raise RuntimeError(f"the run ended before step {step}:\n{process.stdout.read() if process.stdout else ''}")
        time.sleep(0.02)
    raise TimeoutError(f"step {step} not reached")


def records(run: Path) -> list[dict[str, object]]:
    """The run's progress so far."""
    path = run / "progress.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def workers(driver: int) -> list[int]:
    """Process ids of the Ray Train workers of a driver: they sit in a folder that its attempt is named after."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(os.readlink(entry / "cwd")).endswith(f"-{driver}"):
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile, or not ours to look at
    return found


def kill(kind: str, process: subprocess.Popen[str], chance: random.Random) -> None:
    """SIGKILL what the kind names."""
    if kind == "driver":
        process.kill()
        process.communicate()
        return
    pids = workers(process.pid)
    assert pids, "no worker found to kill"
    for pid in pids if kind == "all workers" else [chance.choice(pids)]:
        os.kill(pid, signal.SIGKILL)


def killed_run(run: Path, kind: str, step: int, *flags: str, chance: random.Random) -> None:
    """A run killed once at a step and brought to its end."""
    process = start(run, *flags)
    wait_for_step(run, step, process)
    kill(kind, process, chance)
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


def main() -> int:
    """Run all points and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    chance = random.Random(args.seed)
    for count in (1, 2):
        finish(start(folder / f"straight-{count}", "--workers", str(count)))
    print(f"{'point':>5} {'workers':>7} {'killed':>12} {'at step':>7} {'resumed':>8} {'seconds':>8} {'difference':>11}")
    failed = 0
    for point in range(args.points):
        count, kind, step = 1 + point % 2, KINDS[point // 2 % 3], chance.randrange(1, STEPS - 1)
        run = folder / f"killed-{point}"
        began = time.monotonic()
        killed_run(run, kind, step, "--workers", str(count), chance=chance)
        gap = distance(run, folder / f"straight-{count}")
        resumed = sum("resumed from" in str(record.get("text", "")) for record in records(run))
        failed += gap > (0.0 if count == 1 else 1e-6)
        row = f"{point:>5} {count:>7} {kind:>12} {step:>7} {resumed:>8} {time.monotonic() - began:>8.0f} {gap:>11.1e}"
        print(row, flush=True)
    print(f"{args.points - failed} of {args.points} ended with the weights of the undisturbed run")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
