"""The least that JPEG photographs cost a network: decoded, resized, stacked, one batched forward pass after the other.

    python benchmarks/bare_pass.py CHECKPOINT|EXPORT FOLDER --threads 2 --batch 8 --seconds 10

Prints images/s twice: decoding in turn with the passes, and decoding the next batch in a thread meanwhile. The network
is the one `depthray.load` gives, and its answer is maps at the network's own size as NumPy arrays. Included: reading
EXIF, decoding with OpenCV, resizing, collating, the forward pass. Not included: the files' reading, resizing maps to
the photograph's size, encoding, HTTP.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from load import BOUNDARY, read_bodies

import depthray
from depthray.imaging import photos
from depthray.network_inputs import prepare
from depthray.predict import Predictor
from serve.http import codec
from serve.settings import RequestLimits


def batches(folder: Path, predictor: Predictor, size: int) -> Iterator[Callable[[], list[Any]]]:
    """Makers of batches of prepared samples, the files of a folder in turn, endlessly."""
    files = itertools.cycle(read_bodies(folder))
    while True:
        chosen = list(itertools.islice(files, size))
        # Bound now: by the time it is called the loop has moved on.
        yield lambda chosen=chosen: [sample(each, predictor) for each in chosen]  # type: ignore[misc]


def sample(body: bytes, predictor: Predictor) -> Any:
    """A photograph, or a form with further inputs, as the network gets it."""
    data = predictor.recipe.data
    if not body.startswith(b"--"):
        return prepare(photos.decode(body), {}, data)
    image = codec.read(body, f"multipart/form-data; boundary={BOUNDARY}", RequestLimits())
    return prepare(image.rgb, image.others, data)


def in_turn(predictor: Predictor, makers: Iterator[Callable[[], list[Any]]], seconds: float) -> float:
    """Images/s, decoding and computing one after the other."""
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        images += len(predictor.run(next(makers)()))
    return images / (time.perf_counter() - began)


def overlapped(predictor: Predictor, makers: Iterator[Callable[[], list[Any]]], seconds: float) -> float:
    """Images/s, decoding the next batch while one is computed."""
    with ThreadPoolExecutor(1) as thread:
        # Decoding releases the interpreter lock, so it overlaps with the forward pass.
        ahead = thread.submit(next(makers))
        began, images = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            ready, ahead = ahead.result(), thread.submit(next(makers))
            images += len(predictor.run(ready))
        return images / (time.perf_counter() - began)


def main() -> int:
    """Print both rates and the CPU seconds of each image as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="CHECKPOINT|EXPORT")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    predictor = depthray.load(args.model, device="cpu")
    makers = batches(args.folder, predictor, args.batch)
    in_turn(predictor, makers, 1.0)  # the first passes reserve memory
    results = {}
    for way in (in_turn, overlapped):
        before = time.process_time()  # of all threads
        rate = way(predictor, makers, args.seconds)
        results[way.__name__] = {"rate": rate, "cpu": (time.process_time() - before) / (rate * args.seconds)}
    json.dump(results, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
