"""Frames/s of a core that predicts a data set: reading and the network alone, and `depthray predict --data`.

    python benchmarks/predict_set.py [--data FOLDER] [--recipe NAME] [--frames N] [--workers N]

Untrained networks take as long as trained ones. The bare side reads frames from shards, resizes them and passes them
through the network in batches of 8; the others also resize depth back to the frames, and write. In seconds of this
process's CPU time, which other programs change less than those of the clock.

With --workers, by the clock and on an idle machine alone: so many processes that read and pass frames through the
network, and the command with as many Ray workers, from the first finished part of each to its last, without the start
of Ray.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import rendered_frames
import torch

from depthray import models
from depthray.checkpoints import save
from depthray.checkpoints.load import CheckpointContents
from depthray.config.sections import Data
from depthray.data.sources import open_source
from depthray.network_inputs import prepare
from depthray.predict import BATCH, Predictor, load
from depthray.predicted_sets import set_parts, set_plan
from depthray.predicted_sets.set_plan import SetRequest
from depthray.training import preflight

FRAMES_A_PART = 20


def main() -> int:
    """Print frames/s of each side, and their ratio to the bare one."""
    parser = rendered_frames.build_parser(__doc__)
    parser.add_argument("--recipe", default="unet-resnet34", help="recipe of the network (default: unet-resnet34)")
    parser.add_argument("--frames", type=int, default=64, help="frames that are predicted (default: 64)")
    parser.add_argument("--workers", type=int, help="by the clock, with so many Ray workers and processes")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    _, shards = rendered_frames.folder_and_shards(args.data)
    work = Path(tempfile.mkdtemp(prefix="depthray-bench-"))
    if args.workers:
        by_the_clock(untrained(args.recipe, work), shards, args)
        return 0
    network = load(untrained(args.recipe, work), device="cpu")
    whole = SetRequest(str(work), str(shards), "")
    sides: dict[str, Callable[[], object]] = {"reading and network": lambda: bare(network, shards, args.frames)}
    for name, request in {
        "to shards": whole,
        "to png": replace(whole, to="png"),
        "as labels": replace(whole, as_labels=True),
    }.items():
        sides[name] = lambda request=request: predicted(request, network, args.frames)  # type: ignore[misc]
    seconds = measure(list(sides.values()), args.rounds)
    for name, each in zip(sides, seconds, strict=True):
        print(f"{name:20s} {args.frames / each:8.1f} frames/s  {seconds[0] / each:6.3f}")
    return 0


def by_the_clock(checkpoint: Path, shards: Path, args: argparse.Namespace) -> None:
    """Print frames/s of both sides with so many processes, the medians of rounds taken in turn."""
    rates = [
        (processes_rate(checkpoint, shards, args.frames, args.workers), ray_rate(checkpoint, shards, args.workers))
        for _ in range(args.rounds)
    ]
    alone, on_ray = (statistics.median(each) for each in zip(*rates, strict=True))
    print(f"{args.workers} processes, reading and network {alone:8.1f} frames/s")
    print(f"{args.workers} Ray workers, to shards        {on_ray:8.1f} frames/s  {on_ray / alone:6.3f}")


def processes_rate(checkpoint: Path, shards: Path, frames: int, count: int) -> float:
    """Frames/s of processes that each read frames and pass them through the network, from when all are ready."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count + 1)
    processes = [context.Process(target=bare_process, args=(checkpoint, shards, frames, barrier)) for _ in range(count)]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.monotonic()
    barrier.wait()
    seconds = time.monotonic() - began
    for process in processes:
        process.join()
    return count * frames / seconds


def bare_process(checkpoint: Path, shards: Path, frames: int, barrier: Barrier) -> None:
    """One of these processes, with one thread; its first batches are not in the time."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    network = load(checkpoint, device="cpu")
    bare(network, shards, 2 * BATCH)
    barrier.wait()
    bare(network, shards, frames)
    barrier.wait()


def ray_rate(checkpoint: Path, shards: Path, workers: int) -> float:
    """Frames/s of `depthray predict --workers`, after each worker has finished a part."""
    out = Path(tempfile.mkdtemp(prefix="depthray-bench-")) / "out"
    command = [sys.executable, "-m", "depthray", "predict", str(checkpoint), "--data", str(shards), "--out", str(out)]
    # Workers have niceness 15 otherwise, and would wait for the processes of Ray itself.
    environment = {"RAY_worker_niceness": "0", **os.environ}
    flags = ["--workers", str(workers), "--frames-per-part", str(FRAMES_A_PART)]
    subprocess.run([*command, *flags], env=environment, check=True, capture_output=True)
    finished = sorted(path.stat().st_mtime for path in (out / "parts").glob("*.json"))
    return (len(finished) - workers) * FRAMES_A_PART / (finished[-1] - finished[workers - 1])


def untrained(recipe: str, work: Path) -> Path:
    """A checkpoint of a recipe's network before its training."""
    made = preflight.load(recipe)
    weights = models.build_model(made.model, made.data.inputs).state_dict()
    return save.write(work / "checkpoints", CheckpointContents(weights, {}, made, {}, 0, 1, "f"))


def bare(network: Predictor, shards: Path, frames: int) -> None:
    """Read frames and pass them through the network."""
    source = open_source(Data(source="shards", root=str(shards)))
    for start in range(0, frames, BATCH):
        images = [source.read(index)["image"] for index in range(start, min(start + BATCH, frames))]
        network.run([prepare(image, {}, network.recipe.data) for image in images])


def predicted(request: SetRequest, network: Predictor, frames: int) -> None:
    """Predict the first frames of a set as the first part of it, into a folder of its own."""
    out = tempfile.mkdtemp(prefix="depthray-bench-")
    source, plan = set_plan.prepare(replace(request, out=out, frames_per_part=frames))
    with set_parts.begun(plan):
        set_parts.predict_part(plan, 0, source, network)


def measure(sides: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Seconds of CPU time of each side, taken in turn, the median; the first round is left out."""
    measured: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds + 1):
        for side, seconds in zip(sides, measured, strict=True):
            started = time.process_time()
            side()
            seconds.append(time.process_time() - started)
    return [statistics.median(seconds[1:]) for seconds in measured]


if __name__ == "__main__":
    sys.exit(main())
