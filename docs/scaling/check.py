"""The model of this folder against this machine: the same formulas with measured speeds, and how far they are off.

    python docs/scaling/check.py    # about a minute

torchrun starts it again as each of the workers it measures (`check.py SHARDS`). Each worker has one thread. Gloo's own
threads need the same cores as the network, so nothing of the all-reduce is expected to be hidden behind the backward
pass, other than on a GPU.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import model
import numpy as np
import torch
import torch.distributed as dist
from model import GB, INDEX_BYTES, T4, Cluster
from networks import Network, counted

from depthray import distributed, models
from depthray.__main__ import main as depthray
from depthray.config.sections import Data
from depthray.data.sources import open_source
from depthray.training import preflight
from depthray.training.frames import Frames

RECIPE, SIZE, IMAGES, STEPS = "unet-resnet34", (128, 160), 2, 7
BLOCK, SMALL = 25 * 2**20, 1024  # bytes: a bucket of DDP, and a small sum next to it
SIDES = (128, 320)  # of images whose loading is measured
SECONDS = 3.0  # of a measurement of the loader

Seconds = dict[str, float]


def main() -> int:
    """Measure, and print what was measured next to what the formulas say."""
    if len(sys.argv) > 1:
        return worker(Path(sys.argv[1]))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="depthray-scaling-") as folder:
        shards = rendered(Path(folder))
        one, two, alone = workers(1, shards), workers(2, shards), single(shards)
    print(f"{'':58}{'model':>10}{'measured':>10}{'error':>9}")
    for what, predicted, measured in compared(one, two, alone):
        print(f"{what:58}{predicted:10.3g}{measured:10.3g}{(predicted / measured - 1) * 100:+8.1f}%")
    print()
    print(*speeds(one, two, alone), f"load of the machine: {load:.1f} before", sep="\n")
    return 0


def rendered(folder: Path) -> Path:
    """Shards of 320 rendered frames of 320x240."""
    files, shards = str(folder / "folder"), str(folder / "shards")
    with contextlib.redirect_stdout(io.StringIO()):
        depthray(["data", "render", files, "--layout", "folder", "--frames", "320", "--size", "240", "320"])
        depthray(["data", "pack", files, shards, "--source", "folder", "--encoding", "uint16_mm"])
    return Path(shards)


def compared(one: Seconds, two: Seconds, alone: Seconds) -> list[tuple[str, float, float]]:
    """What, by the model, as measured."""
    # Two processes of this machine as nodes of one GPU each, by what gloo took for a large and a small sum.
    # Two ranks make two hops: half of a small sum is its start, a quarter each hop.
    loopback = Cluster("loopback", T4, 1, 1.0, BLOCK / two["block"], 0.0, two["small"] / 4, "", start=two["small"] / 2)
    net = counted(RECIPE, SIZE)
    reduced, hidden = model.all_reduce(net.gradient_bytes, loopback, 2), overlapped(net, loopback, two["apart"])
    loads = (
        (f"ms of a core to load {side}x{side}", 1e3 * model.load_seconds((side, side)), 1e3 * alone[f"loader {side}"])
        for side in SIDES
    )
    return [
        ("step of 2 workers, ms: theirs without sums + all-reduce", (two["apart"] + reduced) * 1e3, two["step"] * 1e3),
        ("the same from 1 worker's step", (one["step"] + reduced) * 1e3, two["step"] * 1e3),
        ("the same if the all-reduce were hidden, as on a GPU", hidden * 1e3, two["step"] * 1e3),
        ("efficiency of 2 workers", one["step"] / (one["step"] + reduced), one["step"] / two["step"]),
        ("images/s of 2 loaders from 1", 2 / one["loader"], 2 / two["loader"]),
        *loads,
        ("bytes of a process a frame, without an index", INDEX_BYTES, alone["index_bytes"]),
    ]


def overlapped(net: Network, cluster: Cluster, apart: float) -> float:
    """When the last bucket is done if reducing costs the network nothing: forward is a third of a step."""
    done = 0.0
    for bucket in net.buckets:
        done = max(done, apart * (1 + 2 * bucket.ready) / 3) + model.all_reduce(bucket.bytes, cluster, 2)
    return max(done, apart)


def speeds(one: Seconds, two: Seconds, alone: Seconds) -> list[str]:
    """What the figures in model.py were taken from."""
    stages = {"forward pass": "pass", "JPEG in": "decode", "PNG out": "encode"}
    coding = ", ".join(f"{stage} {alone[key] * 1e3:.1f}" for stage, key in stages.items())
    return [
        f"all-reduce by gloo on loopback: {BLOCK / two['block'] / GB:.2f} GB/s, {two['small'] * 1e3:.2f} ms for 1 kB",
        f"a step without sums: one worker {one['apart'] * 1e3:.0f} ms, each of two {two['apart'] * 1e3:.0f} ms",
        f"index of shards: {alone['index_seconds'] * 1e6:.0f} us of a core a frame",
        f"ms of a core an image: {coding}",
    ]


# ---- Workers ---------------------------------------------------------------------------------------------------------


def workers(number: int, shards: Path) -> Seconds:
    """What rank 0 of so many workers measures."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    done = subprocess.run([*command, __file__, str(shards)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"torchrun failed:\n{done.stderr[-2000:]}")
    seconds: Seconds = json.loads(done.stdout.strip().splitlines()[-1])
    return seconds


def worker(shards: Path) -> int:
    """One worker: measure, and print what rank 0 saw as JSON."""
    _use_one_thread()
    device = distributed.start(gpu=False)
    made = _recipe(shards)
    network = distributed.wrap(models.build_model(made.model, made.data.inputs))
    batch = {"image": torch.rand(IMAGES, 3, *SIZE, device=device)}

    def step() -> None:
        network.zero_grad(set_to_none=False)
        network(batch)["depth"].mean().backward()

    def apart() -> None:
        with distributed.hold_gradients(network, hold=True):
            step()

    acts: dict[str, Callable[[], object]] = {"step": step, "apart": apart}
    if distributed.world_size() > 1:
        acts |= {"block": lambda: _all_reduce(BLOCK), "small": lambda: _all_reduce(SMALL)}
    seconds = _least(acts) | {"loader": _loader(made)}
    if distributed.is_main():
        print(json.dumps(seconds), flush=True)
    distributed.stop()
    return 0


def _least(acts: dict[str, Callable[[], object]]) -> Seconds:
    """Least seconds of calls that all workers make together, in turn: the least disturbed by other work."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(STEPS):
        for name, act in acts.items():
            if dist.is_initialized():  # else the wait for the other worker would be measured
                dist.barrier()
            began = time.perf_counter()
            act()
            times[name].append(time.perf_counter() - began)
    return {name: min(each[1:]) for name, each in times.items()}  # the first call allocates


def _all_reduce(nbytes: int) -> None:
    dist.all_reduce(torch.ones(nbytes // 4))  # float32


def _recipe(shards: Path, *overrides: str) -> Any:
    return preflight.load(RECIPE, [f"data.root={shards}", "curriculum.chunks=1", *overrides])


def _loader(made: Any) -> float:
    """Seconds of a core that a training image takes: read, augmented, resized, collated."""
    frames = Frames.open(made)
    count, epoch, began, wall = 0, 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - wall < SECONDS:
        count += sum(len(batch["id"]) for step in frames.train_epoch(epoch) for batch in step)
        epoch += 1
    return (time.process_time() - began) / count


# ---- One process -----------------------------------------------------------------------------------------------------


def single(shards: Path) -> Seconds:
    """What needs no second worker: loading, the index of shards, a forward pass, coding of a picture."""
    _use_one_thread()
    data = Data(source="shards", root=str(shards))
    began = time.process_time()
    count = len(open_source(data).frames)
    index_seconds = (time.process_time() - began) / count
    tracemalloc.start()
    source = open_source(data)
    # Opened twice: tracing makes it slow, so its time is taken without.
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del source
    loading = {f"loader {side}": _loader(_recipe(shards, f"data.size={side},{side}")) for side in SIDES}
    return {"index_bytes": held / count, "index_seconds": index_seconds, **loading, "pass": _forward(), **_coding()}


def _forward(images: int = 8) -> float:
    """Seconds of a core for an image of a batch in a forward pass."""
    made = preflight.load(RECIPE, [])
    network = models.build_model(made.model, made.data.inputs).eval()
    batch = {"image": torch.rand(images, 3, *SIZE)}
    with torch.inference_mode():
        return _mean(lambda: network(batch), 3) / images


def _coding() -> Seconds:
    """Seconds of a core for a 640x480 JPEG in, and for its depth as 16-bit PNG out, with a sensor's noise."""
    rng = np.random.default_rng(0)
    # Surfaces with noise on them: noise alone does not compress, surfaces alone do so too well.
    smooth = cv2.resize(rng.random((12, 16), np.float32), (640, 480), interpolation=cv2.INTER_CUBIC)
    rgb = np.clip(smooth[..., None] * 200 + rng.normal(0, 4, (480, 640, 3)), 0, 255).astype(np.uint8)
    depth = np.clip(smooth * 5000 + rng.normal(0, 10, smooth.shape), 0, 65535).astype(np.uint16)
    jpeg = cv2.imencode(".jpg", rgb)[1]
    return {
        "decode": _mean(lambda: cv2.imdecode(jpeg, cv2.IMREAD_COLOR)),
        "encode": _mean(lambda: cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, 1])),
    }


def _mean(act: Callable[[], object], times: int = 50) -> float:
    """Seconds of a core for a call, after one that is not counted."""
    act()
    began = time.process_time()
    for _ in range(times):
        act()
    return (time.process_time() - began) / times


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


if __name__ == "__main__":
    sys.exit(main())
