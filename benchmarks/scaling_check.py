"""The scaling model against this machine: the same formulas with measured speeds, and how far they are off.

Started by `scaling.py --check`; torchrun starts it again as each of the workers it measures:

    torchrun --nproc-per-node 2 benchmarks/scaling_check.py FRAMES

Each worker has one thread. Gloo's own threads need the same cores as the network, so nothing of the all-reduce is
expected to be hidden behind the backward pass, other than on a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import frames
import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from depthray import distributed, models, recipe
from depthray.data.frames import Frames
from depthray.data.sources import open_source
from depthray.sections import Data

RECIPE, SIZE, IMAGES, STEPS = "unet-resnet34", (128, 160), 2, 7
BLOCK, SMALL = 25 * 2**20, 1024  # bytes: a bucket of DDP, and a sum beside it
SIDES = (128, 320)  # of images whose loading is measured
SECONDS = 3.0  # of a measurement of the loader


def measured() -> dict[str, dict[str, float]]:
    """What one worker and two workers take: by their number, by what was measured."""
    _, shards = frames.folder_and_shards(None)
    return {str(workers): _workers(workers, shards) for workers in (1, 2)} | {"one": _alone(shards)}


def _workers(number: int, shards: Path) -> dict[str, float]:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    done = subprocess.run([*words, __file__, str(shards)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"torchrun failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> int:
    """One worker: measure, and print what rank 0 saw as JSON."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    device = distributed.start(gpu=False)
    made = _made(Path(sys.argv[1]))
    wrapped = distributed.wrap(models.build_model(made.model, made.data.inputs, pretrained=False))
    batch = {"image": torch.rand(IMAGES, 3, *SIZE, device=device)}
    acts = {"step": lambda: _step(wrapped, batch), "apart": lambda: _apart(wrapped, batch)}
    if distributed.world_size() > 1:
        acts |= {"block": lambda: _sum(BLOCK), "small": lambda: _sum(SMALL)}
    told = _least(acts)
    told["loader"] = _loader(made)
    if distributed.is_main():
        print(json.dumps(told), flush=True)
    distributed.stop()
    return 0


def _made(shards: Path, *words: str) -> Any:
    return recipe.load(RECIPE, [f"data.root={shards}", "curriculum.chunks=1", *words])


def _least(acts: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least seconds of calls that all workers make together, in turn: what other work on the machine spares."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(STEPS):
        for name, act in acts.items():
            if dist.is_initialized():
                dist.barrier()
            began = time.perf_counter()
            act()
            times[name].append(time.perf_counter() - began)
    return {name: min(found[1:]) for name, found in times.items()}


def _step(network: nn.Module, batch: Any) -> None:
    network.zero_grad(set_to_none=False)
    network(batch)["depth"].mean().backward()


def _apart(network: nn.Module, batch: Any) -> None:
    with distributed.hold_gradients(network, hold=True):
        _step(network, batch)


def _sum(nbytes: int) -> None:
    dist.all_reduce(torch.ones(nbytes // 4))


def _loader(made: Any) -> float:
    """Seconds of processor that a training image takes: read, changed, resized, collated."""
    loaded = Frames.open(made)
    count, began, epoch = 0, time.process_time(), 0
    wall = time.perf_counter()
    while time.perf_counter() - wall < SECONDS:
        for step in loaded.train_epoch(epoch):
            count += sum(len(batch["id"]) for batch in step)
        epoch += 1
    return (time.process_time() - began) / count


def _alone(shards: Path) -> dict[str, float]:
    """What needs no second worker: loading, the index of shards, a forward pass, a picture's way through the server."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    opened = Data(source="shards", root=str(shards))
    began = time.process_time()
    count = len(open_source(opened).frames)
    took = time.process_time() - began
    tracemalloc.start()
    source = open_source(opened)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del source
    loading = {f"loader {side}": _loader(_made(shards, f"data.size={side},{side}")) for side in SIDES}
    return {"index_bytes": held / count, "index_seconds": took / count, **loading, "pass": _pass(), **_coding()}


def _pass(images: int = 8) -> float:
    """Seconds of processor an image takes of a forward pass of eight."""
    made = recipe.load(RECIPE, [])
    network = models.build_model(made.model, made.data.inputs, pretrained=False).eval()
    batch = {"image": torch.rand(images, 3, *SIZE)}
    with torch.inference_mode():
        return _each(lambda: network(batch), 3) / images


def _coding() -> dict[str, float]:
    """Seconds of processor for a 640x480 JPEG in, and for its depth as 16-bit PNG out, with a sensor's noise."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.random((12, 16), np.float32), (640, 480), interpolation=cv2.INTER_CUBIC)
    rgb = np.clip(smooth[..., None] * 200 + rng.normal(0, 4, (480, 640, 3)), 0, 255).astype(np.uint8)
    depth = np.clip(smooth * 5000 + rng.normal(0, 10, smooth.shape), 0, 65535).astype(np.uint16)
    jpeg = cv2.imencode(".jpg", rgb)[1]
    return {
        "decode": _each(lambda: cv2.imdecode(jpeg, cv2.IMREAD_COLOR)),
        "encode": _each(lambda: cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, 1])),
    }


def _each(act: Callable[[], object], times: int = 50) -> float:
    act()
    began = time.process_time()
    for _ in range(times):
        act()
    return (time.process_time() - began) / times


if __name__ == "__main__":
    sys.exit(main())
