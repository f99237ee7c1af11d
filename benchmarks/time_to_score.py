"""Minutes until a score: the regime of seed 001 in a plain PyTorch loop, against a recipe of depthray.

    python benchmarks/time_to_score.py --data NYU [RECIPE] [section.key=value ...] [--reach 0.30] [--times 4]

The plain loop trains the seed's U-Net on ResNet-34, its decoder mended, with its loss, optimiser and constant learning
rate, all frames in each epoch, decoding JPEG and PNG. Its ImageNet weights are torchvision's, which are a download:
without them, as here, it starts from random ones, and `--same-network` gives it the recipe's network and weights
instead, so that what is left is the way of training. Both see frames of one size and the same random changes but for
what the recipe asks for, are scored after each epoch on the same scenes by one protocol, and the clock runs through all
of it, from opening the data on. The plain loop is ended after `--times` as many minutes as the recipe took.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import plain_loop
import rendered_frames
import torch

from depthray.config.sections import Recipe
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.sources import open_source
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.protocols import PLAIN
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, fit
from depthray.training.state import begin

SCORE = "abs_rel"
# Without a curriculum, over a few epochs: the way to a good score, not to the best one.
QUICK = ["data.size=128,160", "train.epochs=4", "curriculum.sizes=[]", "augment.crop=1"]
SEED = "original/unet-resnet34"
CPU = torch.device("cpu")


def main() -> int:
    """Print both sides' scores by the clock, and the ratio of their minutes."""
    args = parse()
    folder, shards = rendered_frames.folder_and_shards(args.data)
    recipe = preflight.load(args.recipe, [f"data.root={shards}", *(args.overrides or QUICK)])
    minutes = watch("depthray", ours(recipe), reach=args.reach)
    if minutes is None:
        print(f"{args.recipe} did not come to {SCORE} {args.reach:g}")
        return 1
    seed = seeds_recipe(recipe, folder, same_network=args.same_network)
    theirs = watch("plain", plain(seed), reach=args.reach, most=args.times * minutes)
    ratio = f"{theirs / minutes:.1f}" if theirs else f"more than {args.times:g}"
    print(f"minutes to {SCORE} {args.reach:g}: depthray {minutes:.2f}, plain {ratio} times as many (wanted >= 3)")
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with index.csv, JPEG and 16-bit PNG in mm")
    parser.add_argument("recipe", nargs="?", default="unet-lite", help="depthray's recipe")
    parser.add_argument("overrides", nargs="*", help=f"changes of it (default: {' '.join(QUICK)})")
    parser.add_argument("--reach", type=float, default=0.30, help="AbsRel of the validation frames")
    parser.add_argument("--times", type=float, default=4.0, help="minutes of the plain loop, in those of the recipe")
    parser.add_argument("--same-network", action="store_true", help="the recipe's network and weights for both")
    return parser.parse_intermixed_args()


def seeds_recipe(recipe: Recipe, folder: Path, *, same_network: bool) -> Recipe:
    """The seed's loss, optimiser and batch, for frames of a folder in the recipe's size."""
    height, width = recipe.data.size
    data = ["data.source=folder", f"data.root={folder}", f"data.size={height},{width}"]
    made = preflight.load(SEED, [*data, *plain_loop.AUGMENT, "model.weights=", "model.decoder=fixed"])
    return made.model_copy(update={"model": recipe.model}) if same_network else made


def ours(recipe: Recipe) -> Iterator[float]:
    """The score after each epoch of `fit`."""
    state = begin(recipe, CPU)
    for event in fit(recipe, state, Frames.open(recipe)):
        if isinstance(event, Epoch):
            yield event.metrics[SCORE]


def plain(recipe: Recipe) -> Iterator[float]:
    """The score after each epoch of the plain loop."""
    source = open_source(recipe.data)
    parts = split.split(source.frames, recipe.data)
    torch.manual_seed(recipe.seed)
    steps = len(parts.train) // recipe.train.batch_size
    loop = plain_loop.train(recipe, [int(row) for row in parts.train], lr=recipe.optim.lr)
    for step, network in enumerate(loop, 1):
        if step % steps == 0:
            batches = eval_batches(source, parts.val, recipe.data, batch_size=recipe.eval.batch_size)
            yield evaluate(network.eval(), batches, protocol=PLAIN, device=CPU).scores()[SCORE]


def watch(side: str, scores: Iterator[float], *, reach: float, most: float = float("inf")) -> float | None:
    """Print each score; the minutes until one is reached, None where that takes more than `most` or never happens."""
    started = time.perf_counter()
    for epoch, value in enumerate(scores, 1):
        minutes = (time.perf_counter() - started) / 60
        print(f"{side:8} epoch {epoch:3} {minutes:6.2f} min  {SCORE} {value:.4f}", flush=True)
        if value <= reach:
            return minutes
        if minutes >= most:
            return None
    return None


if __name__ == "__main__":
    sys.exit(main())
