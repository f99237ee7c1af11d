"""Training each recipe with depthray against a plain PyTorch loop as people write it, images/s and memory, end to end.

    python benchmarks/training.py [RECIPE ...] [--data FOLDER] [--rounds 3] [--steps 12] [--set data.size=252,336]

Both train the same network with the same loss on the same frames, at the size and batch of the recipe, with flips and
colour jitter, on all cores, without Ray. The plain loop decodes JPEG and PNG in two DataLoader workers, in float32 with
torch's optimiser at its defaults, as the PyTorch tutorials do, and averages no weights. depthray reads shards, clips,
averages and checks as the recipe says, in float32 and in bf16. Every measurement is a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import plain_loop
import rendered_frames
import torch

from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import fit
from depthray.training.state import Hooks, begin
from depthray.training.throughput import Interval

# One phase over all frames at one size from random weights, and the plain loop's augmentation.
WORDS = [
    *("curriculum.chunks=1", "curriculum.sizes=[]", "finetune.epochs=0", "model.weights=", "eval.zero_shot=false"),
    "train.log_seconds=0.001",  # an interval for every step: their times are the clock
    *plain_loop.AUGMENT,
]
LEFT_OUT = 3  # steps in which loaders start and memory is reserved
SIDES = ("plain", "fp32", "bf16")


def main() -> int:
    """Print images/s, peak memory and ratios of every recipe."""
    parser = rendered_frames.build_parser(__doc__)
    parser.add_argument("recipes", nargs="*", default=recipes.names(), help="all that are shipped by default")
    parser.add_argument("--steps", type=int, default=12, help=f"of a measurement, of which {LEFT_OUT} are not counted")
    parser.add_argument("--set", nargs="*", default=[], help="overrides for both sides")
    sides = "of them; bf16 takes minutes a step where the processor does not multiply it (default: all)"
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help=sides)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # what a process of its own is asked for
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.recipes[0], args.side, args.root, steps=args.steps, overrides=args.set)))
        return 0
    folder, shards = rendered_frames.folder_and_shards(args.data)
    print("recipe                    side     images/s   ratio     GiB   ratio")
    for name in args.recipes:
        results: dict[str, list[dict[str, float]]] = {side: [] for side in args.sides}
        for _ in range(args.rounds):
            for side in args.sides:
                results[side].append(in_a_process(name, side, folder if side == "plain" else shards, args))
        usual = medians(results[args.sides[0]])
        for side in args.sides:
            rate, memory = medians(results[side])
            wanted = {"plain": "", "fp32": "  (wanted >= 1.5, <= 1)", "bf16": "  (wanted >= 2.2, <= 1)"}[side]
            ratios = f"{rate:8.2f}  {rate / usual[0]:6.2f}  {memory:6.2f}  {memory / usual[1]:6.2f}{wanted}"
            print(f"{name:24}  {side:6} {ratios}", flush=True)
    return 0


def in_a_process(name: str, side: str, root: Path, args: argparse.Namespace) -> dict[str, float]:
    """What `measure` returns there: memory of one side is not hidden by what another has reserved."""
    command = [sys.executable, __file__, name, "--side", side, "--root", str(root), "--steps", str(args.steps)]
    done = subprocess.run([*command, "--set", *args.set], stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(name: str, side: str, root: Path, *, steps: int, overrides: list[str]) -> dict[str, float]:
    """Images a second after the first steps, and GiB that the process has had resident at most."""
    source = ["data.source=folder"] if side == "plain" else ["data.source=shards", f"train.precision={side}"]
    recipe = preflight.load(name, [*WORDS, f"data.root={root}", *source, *overrides])
    times = (plain if side == "plain" else ours)(recipe, steps=steps)
    seconds = times[-1] - times[LEFT_OUT - 1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    return {"rate": (len(times) - LEFT_OUT) * recipe.train.batch_size / seconds, "peak": peak}


def medians(results: list[dict[str, float]]) -> tuple[float, float]:
    """Images a second and GiB."""
    rate, peak = (statistics.median(result[key] for result in results) for key in ("rate", "peak"))
    return rate, peak


def plain(recipe: Recipe, *, steps: int) -> list[float]:
    """When each step of the usual loop was done."""
    return [time.perf_counter() for _ in itertools.islice(plain_loop.train(recipe), steps)]


def ours(recipe: Recipe, *, steps: int) -> list[float]:
    """When each step of `fit` was done."""
    state = begin(recipe, torch.device("cpu"))
    frames = Frames.open(recipe)
    # Asked within a step, before it is counted.
    state.hooks = Hooks(stop_requested=lambda: state.position.step >= steps - 1)
    return [time.perf_counter() for event in fit(recipe, state, frames) if isinstance(event, Interval)]


if __name__ == "__main__":
    sys.exit(main())
