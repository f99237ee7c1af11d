"""Speeds of gpu.py: training of each recipe against the roof of the GPU's memory, loaders, and predictions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import networks
import torch
from gpu_bench import ONE_STAGE, Bench, OneBatch, batch_of, loss_of, relative, train
from torch._dynamo.utils import counters

from depthray import models
from depthray.batch import to_device
from depthray.config.sections import Train
from depthray.data.sources import synthetic
from depthray.training import preflight
from depthray.training.frames import Frames

MODES = {
    "eager": (),
    "contiguous": ("train.channels_last=false",),
    "fp32": ("train.precision=fp32",),
    "tf32": ("train.precision=tf32",),
    "compile": ("train.compile=true",),
    "graph": ("train.cuda_graph=true",),
}
OPTIMISER_BYTES = 28  # of a parameter: weight, gradient, two moments read, three of them written
PLAIN_COLOURS = [f"augment.{key}=0" for key in ("brightness", "contrast", "saturation", "hue", "blur", "noise")]
Facts = dict[str, Any]


def roofs(bench: Bench) -> Facts:
    """Bytes per second that a copy reads and writes, and FLOP per second of a large bf16 product."""
    count = 2**18 if bench.small else 2**30
    source = torch.empty(count, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copy = _seconds(bench, lambda: target.copy_(source))
    size = 128 if bench.small else 8192
    one = torch.randn(size, size, device=bench.device, dtype=torch.bfloat16)
    product = _seconds(bench, lambda: one @ one)
    return {"bytes_per_second": 2 * count / copy, "flop_per_second": 2 * size**3 / product, "ok": None}


def _seconds(bench: Bench, act: Callable[[], object]) -> float:
    times = []
    for _ in range(3 if bench.small else 12):
        bench.synchronize()
        started = time.perf_counter()
        act()
        bench.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def steps(bench: Bench, name: str, mode: str, roof: Facts) -> Facts:
    """Images/s of training on a batch in pinned memory, its share of the roof, idle time of the GPU, peak memory.

    The roof is the time in which memory moves what each operation of the network reads and writes, unfused, as eager
    PyTorch runs it: compiled networks can be above it.
    """
    if mode == "graph" and not (bench.is_gpu and "cuda_graph" in Train.model_fields):
        return {"ok": None, "why": "train.cuda_graph is for a GPU"}
    images, size = (2, (32, 32)) if bench.small else (32, networks.SIZES.get(name))
    sized = (f"data.size={size[0]},{size[1]}",) if size else ()
    recipe = bench.recipe(name, f"train.batch_size={images}", *sized, *MODES[mode])
    state = bench.begin(recipe)
    frames = OneBatch(batch_of(recipe, images, pinned=bench.is_gpu))
    if bench.is_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    reports = train(state, frames, 3 if bench.small else 40)
    bench.synchronize()
    first = 1 if bench.small else 15  # steps before it start kernels and fill caches
    took = (time.perf_counter() - reports[first][0]) / (len(reports) - 1 - first)
    rate = images / took
    highest = _roof(name, recipe.data.size, images, roof)
    facts: Facts = {"images_per_second": rate, "milliseconds": 1000 * took, "roof_images_per_second": highest}
    facts |= {"of_roof": rate / highest, "batch": images, "size": list(recipe.data.size)}
    facts |= {"format": str(state.precision.dtype), "idle": None, "gib": None}
    if bench.is_gpu:
        facts["gib"] = torch.cuda.max_memory_allocated(bench.device) / 2**30
        facts["idle"] = _idle(bench, state, frames)
    wanted = name == "unet-resnet34" and mode == "eager" and bench.is_gpu
    return facts | {"ok": facts["of_roof"] >= 0.69 and facts["idle"] < 0.1 if wanted else None}


def _roof(name: str, size: tuple[int, int], images: int, roof: Facts) -> float:
    """Images per second at which memory alone is busy."""
    net = networks.counted(name, size)
    moved = images * (net.touched + net.touched_back) + net.fixed + OPTIMISER_BYTES * net.parameters
    return float(images * roof["bytes_per_second"] / moved)


def _idle(bench: Bench, state: Any, frames: OneBatch) -> float:
    """Share of the time in which the GPU had nothing to do, by PyTorch's profiler, over ten steps."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        started = time.perf_counter()
        train(state, frames, 10)
        bench.synchronize()
        took = time.perf_counter() - started
    spans = sorted(
        (event.time_range.start, event.time_range.end) for event in profile.events() if event.device_type.name == "CUDA"
    )
    busy, end = 0.0, float("-inf")
    for start, stop in spans:  # microseconds; copies overlap kernels, and count once
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return max(0.0, 1 - busy / 1e6 / took)


def compiles(bench: Bench, name: str) -> Facts:
    """A compiled network has one graph and the loss of the eager one, and is compiled once in a run."""
    if bench.small:
        return {"ok": None, "why": "compiling takes longer than a test may"}
    recipe = bench.recipe(name, "train.compile=true")
    batch = batch_of(recipe, bench.images)
    state = bench.begin(recipe)
    with torch.no_grad():
        expected = loss_of(state, batch)
    torch._dynamo.reset()
    counters.clear()
    started = time.perf_counter()
    with torch._dynamo.config.patch(error_on_recompile=True):  # an error is a failed check
        reports = train(state, OneBatch(batch), 6)
    facts = {
        "compile_seconds": reports[0][0] - started,
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
        "apart": relative(expected, torch.tensor(reports[0][1].loss)),
    }
    return facts | {"ok": not facts["breaks"] and facts["apart"] < 0.03}


def shards(bench: Bench) -> Path:
    """A folder of packed rendered frames, 240x320, made once."""
    folder = bench.folder / "shards"
    if not folder.exists():
        size, count = ((32, 48), 16) if bench.small else ((240, 320), 480)
        synthetic.write_rooms(folder, frames=count, size=size, seed=0, layout="shards")
    return folder


def loads(bench: Bench, name: str, workers: int) -> Facts:
    """Images/s of the loader alone and of training from shards, and the share of the time it waited for data."""
    images = bench.images if bench.small else 32
    size = "32,32" if bench.small else "320,320"
    # albumentations is not on every machine: without it colours stay as they are.
    plain = [] if find_spec("albumentations") else PLAIN_COLOURS
    words = [
        "data.source=shards",
        f"data.root={shards(bench)}",
        f"data.workers={workers}",
        f"data.size={size}",
        f"train.batch_size={images}",
    ]
    recipe = preflight.load(name, [*ONE_STAGE, *words, *plain, "train.epochs=100", "finetune.epochs=0"])
    frames = Frames.open(recipe)
    loaded, epoch, started = 0, 0, 0.0
    limit = 0.2 if bench.small else 3.0
    while not loaded or time.perf_counter() - started < limit:
        for _ in frames.train_epoch(epoch):
            started = started or time.perf_counter()  # from the first batch on: processes have started by then
            loaded += images
        epoch += 1
    alone = (loaded - images) / (time.perf_counter() - started)
    reports = [event for _, event in train(bench.begin(recipe), frames, max(1, frames.steps_per_epoch - 1))]
    rate = statistics.median(event.images_per_second for event in reports[1:] or reports)
    waited = statistics.mean(event.wait_share for event in reports[1:] or reports)
    return {"loader": alone, "training": rate, "wait_share": waited, "plain_colours": bool(plain), "ok": None}


def latency(bench: Bench, name: str) -> Facts:
    """Median milliseconds of a forward pass in each format, of 1 to 16 images in the memory of the device."""
    recipe = bench.recipe(name)
    state = bench.begin(recipe)
    state.model.eval()
    facts: Facts = {}
    data = recipe.data
    for images in (1,) if bench.small else (1, 4, 16):
        batch = to_device(batch_of(recipe, images), bench.device, min_depth=data.min_depth, max_depth=data.max_depth)
        with torch.inference_mode(), state.precision.active():
            facts[f"batch_{images}"] = 1000 * _seconds(bench, lambda batch=batch: models.run(state.model, batch))  # type: ignore[misc]
    return facts | {"ok": None}
