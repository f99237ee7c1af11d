"""Images/s of one core: shards against decoding files, and each recipe's augmentation against a pass for each change.

    python benchmarks/loader.py [--data FOLDER] [--recipes NAME,NAME@HEIGHTxWIDTH]

First RGB uint8 and float32 metres before any augmentation, in a random order, files in the page cache: JPEG and PNG
with cv2, and shards. Then training samples of recipes from those shards: in several passes, as the loader makes them on
the CPU, and what the CPU does where a device makes the changes (augment.device=device). In seconds of this process's
CPU time, which other programs change less than those of the clock.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import rendered_frames
import several_passes
import torch
from rendered_frames import read_image

from depthray.config import recipe as recipes
from depthray.config.sections import Data
from depthray.data.loader import TrainLoader
from depthray.data.sources import open_source

RECIPES = "unet-resnet34,unet-resnet34@320x320,fpn-resnet101,bifpn-efficientnet-b0,depthnet,masknet,depthmasknet,demo"
RECIPES += ",unet-lite,dpt-vits"
EPOCH = 1000  # after any curriculum


def main() -> int:
    """Print samples/s of both and their ratio, then those of each recipe."""
    parser = rendered_frames.build_parser(__doc__)
    parser.add_argument("--recipes", default=RECIPES, help="recipes, each at its own size or at another (NAME@320x320)")
    args = parser.parse_args()
    cv2.setNumThreads(0)  # one thread for all sides
    torch.set_num_threads(1)
    folder, shards = rendered_frames.folder_and_shards(args.data)
    with (folder / "index.csv").open(encoding="utf-8") as file:
        files = [(folder / row["rgb"], folder / row["depth"]) for row in csv.DictReader(file)]
    source = open_source(Data(source="shards", root=str(shards)))
    order = np.random.default_rng(0).permutation(len(files)).tolist()  # as training reads
    slow, fast = rates(
        [lambda: (decode(*files[i]) for i in order), lambda: (source.read(i) for i in order)], len(order), args.rounds
    )
    print(f"cv2 decoding  {slow:8.0f} samples/s")
    print(f"shards        {fast:8.0f} samples/s")
    print(f"ratio         {fast / slow:8.1f}  (wanted >= 8)")
    if args.recipes:
        print("\nrecipe                 several passes  one sampling  ratio  with a device, ms of the CPU an image")
    for name in filter(None, args.recipes.split(",")):
        print(row(name, shards, order[:96], args.rounds), flush=True)
    return 0


def row(name: str, shards: Path, order: list[int], rounds: int) -> str:
    """A recipe's images/s of both ways on the CPU, and ms an image where a device makes the changes."""
    recipe, _, size = name.partition("@")
    overrides = [f"data.size={size.replace('x', ',')}"] if size else []
    read = recipes.read(recipe, ["data.source=shards", f"data.root={shards}", "augment.device=cpu", *overrides])
    source = open_source(read.data)
    batch = min(16, read.train.batch_size)
    batches = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]
    on_cpu, on_device = (
        TrainLoader(
            source, order, read.data, read.augment.model_copy(update={"device": where}), seed=0, batch_size=batch
        )
        for where in ("cpu", "device")
    )
    passes, sampled, drawn = rates(
        [
            lambda: (several_passes.load(source, read.data, read.augment, each, epoch=EPOCH) for each in batches),
            lambda: (on_cpu.load_step([[(EPOCH, index) for index in each]]) for each in batches),
            lambda: (on_device.load_step([[(EPOCH, index) for index in each]]) for each in batches),
        ],
        len(batches) * batch,
        rounds,
    )
    return f"{name:22s} {passes:14.0f} {sampled:13.0f} {sampled / passes:6.2f} {1000 / drawn:8.2f}"


def decode(rgb: Path, depth: Path) -> tuple[np.ndarray, np.ndarray]:
    """The usual way: two files, one conversion each."""
    image = cv2.cvtColor(read_image(rgb), cv2.COLOR_BGR2RGB)
    metres = read_image(depth, cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
    return image, metres


def rates(sides: Sequence[Callable[[], Iterator[object]]], count: int, rounds: int) -> list[float]:
    """Samples per second of CPU time of each side, taken in turn, the median; each call makes `count` samples.

    What was made is dropped at once, as training does: memory that is kept would be new to the process each time, and
    the kernel's work for that several times the reading.
    """
    measured: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds + 1):  # the first round fills the page cache and is left out
        for side, seconds in zip(sides, measured, strict=True):
            started = time.process_time()
            deque(side(), maxlen=0)
            seconds.append(time.process_time() - started)
    return [count / statistics.median(seconds[1:]) for seconds in measured]


if __name__ == "__main__":
    sys.exit(main())
