"""Frames/s of a core that predicts a data set: reading and the network alone, and `depthray predict --data`.

    python benchmarks/predict_set.py [--data FOLDER] [--recipe NAME] [--frames N]

Untrained networks take as long as trained ones. The bare side reads frames from shards, resizes them and passes them
through the network in batches of 8; the others also resize depth back to the frames, and write. In seconds of this
process's CPU time, which other programs change less than those of the clock.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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


def main() -> int:
    """Print frames/s of each side, and their ratio to the bare one."""
    parser = rendered_frames.build_parser(__doc__)
    parser.add_argument("--recipe", default="unet-resnet34", help="recipe of the network (default: unet-resnet34)")
    parser.add_argument("--frames", type=int, default=64, help="frames that are predicted (default: 64)")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    _, shards = rendered_frames.folder_and_shards(args.data)
    work = Path(tempfile.mkdtemp(prefix="depthray-bench-"))
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
