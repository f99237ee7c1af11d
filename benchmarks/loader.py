"""Reading frames from shards against decoding the same frames from JPEG and PNG with cv2, samples/s on one thread.

    python benchmarks/loader.py [--data FOLDER]

Both sides end with RGB uint8 and float32 metres, before any augmentation, in a random order, files in the page cache.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rendered_frames
from rendered_frames import read_image

from depthray.config.sections import Data
from depthray.data.sources import open_source


def main() -> int:
    """Print samples/s of both and their ratio."""
    args = rendered_frames.build_parser(__doc__).parse_args()
    cv2.setNumThreads(0)  # one thread for both sides
    folder, shards = rendered_frames.folder_and_shards(args.data)
    with (folder / "index.csv").open(encoding="utf-8") as file:
        files = [(folder / row["rgb"], folder / row["depth"]) for row in csv.DictReader(file)]
    source = open_source(Data(source="shards", root=str(shards)))
    order = np.random.default_rng(0).permutation(len(files)).tolist()  # as training reads
    decoded, packed = [], []
    for _ in range(args.rounds + 1):  # the first round fills the page cache and is left out
        decoded.append(rate(lambda i: decode(*files[i]), order))
        packed.append(rate(lambda i: source.read(i), order))
    slow, fast = statistics.median(decoded[1:]), statistics.median(packed[1:])
    print(f"cv2 decoding  {slow:8.0f} samples/s")
    print(f"shards        {fast:8.0f} samples/s")
    print(f"ratio         {fast / slow:8.1f}  (wanted >= 8)")
    return 0


def decode(rgb: Path, depth: Path) -> tuple[np.ndarray, np.ndarray]:
    """The usual way: two files, one conversion each."""
    image = cv2.cvtColor(read_image(rgb), cv2.COLOR_BGR2RGB)
    metres = read_image(depth, cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
    return image, metres


def rate(read: Callable[[int], object], order: list[int]) -> float:
    """Samples per second over all frames."""
    started = time.perf_counter()
    for index in order:
        read(index)
    return len(order) / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
