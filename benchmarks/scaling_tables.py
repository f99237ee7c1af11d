"""The tables of docs/scaling.md, each as Markdown under its name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import scaling_training as training
from scaling_machines import (
    A100,
    BIG_BASIN,
    CLUSTERS,
    GB,
    GOYAL_EFFICIENCY,
    JITTER,
    RESNET50_BATCH,
    RESNET50_EIGHT,
    RESNET50_FLOOR,
    RESNET50_INFERENCE,
    RESNET50_TRAINING,
    T4,
    V100,
    Range,
)
from scaling_networks import SIZES, counted, resnet50
from scaling_sizes import SIZINGS
from scaling_training import Corner, over

IMAGES, TOGETHER = 32, 1024  # images on each GPU, and on all
GPUS = (1, 8, 16, 64, 256, 1024)
NAMES = tuple(SIZES)

Rows = Iterable[Sequence[Any]]


def table(head: Sequence[str], rows: Rows) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def span(found: Range, digits: int = 2, factor: float = 1.0) -> str:
    """A range as people write it."""
    low, high = (f"{value * factor:.{digits}f}" for value in found)
    return low if low == high else f"{low}-{high}"


def networks() -> str:
    """What was counted."""
    head = ["recipe", "size", "parameters", "GFLOP forward", "MB touched forward", "operations", "gradients", "buckets"]
    rows = [
        [
            name,
            f"{net.size[1]}x{net.size[0]}",
            f"{net.parameters / 1e6:.1f} M",
            f"{net.forward / 1e9:.1f}",
            f"{net.touched / 1e6:.0f}",
            f"{net.launches} + {net.launches_back}",
            f"{net.gradient_bytes / 1e6:.0f} MB",
            f"{len(net.buckets)}, last {net.buckets[-1].bytes / 1e6:.1f} MB",
        ]
        for name, net in ((name, counted(name)) for name in NAMES)
    ]
    return table(head, rows)


def speeds() -> str:
    """Images/s of one GPU."""
    by_gpu = {cluster.gpu.name: cluster for cluster in CLUSTERS}
    rows = []
    for name in NAMES:
        found = [
            over(lambda c, cluster=cluster, name=name: IMAGES / training.step(counted(name), cluster, 1, IMAGES, c))
            for cluster in by_gpu.values()
        ]
        rows.append([name, *(span(each, 0) for each in found)])
    return table(["recipe", *by_gpu], rows)


def reduces() -> str:
    """All-reduce of the gradients of one network at the full line rate, by way."""
    net = counted("unet-resnet34")
    rows = []
    for cluster, gpus in itertools.product(CLUSTERS, (8, 64, 1024)):
        ways = training.ways(net.gradient_bytes, cluster, gpus, 1.0)
        cells = [f"{ways[way] * 1e3:.1f}" if way in ways else "-" for way in ("ring", "tree", "two levels")]
        rows.append([cluster.name, gpus, *cells])
    return table(["cluster", "GPUs", "ring, ms", "tree, ms", "two levels, ms"], rows)


def weak_by_recipe() -> str:
    """Efficiency of all recipes on one kind of cluster, as much work on every GPU."""
    return _efficiency(
        "recipe", NAMES, lambda name, gpus, c: training.weak(counted(name), CLUSTERS[0], gpus, IMAGES, c)
    )


def weak_by_cluster() -> str:
    """Efficiency of one recipe on all kinds of clusters."""
    net, by_name = counted("unet-resnet34"), {cluster.name: cluster for cluster in CLUSTERS}
    return _efficiency("cluster", by_name, lambda name, gpus, c: training.weak(net, by_name[name], gpus, IMAGES, c))


def strong_by_recipe() -> str:
    """Efficiency of all recipes with as much work on all GPUs together."""
    at = CLUSTERS[0]
    return _efficiency("recipe", NAMES, lambda name, gpus, c: training.strong(counted(name), at, gpus, TOGETHER, c))


def strong_by_cluster() -> str:
    """Efficiency of one recipe, as much work on all GPUs together."""
    net, by_name = counted("fpn-resnet101"), {cluster.name: cluster for cluster in CLUSTERS}
    return _efficiency("cluster", by_name, lambda name, gpus, c: training.strong(net, by_name[name], gpus, TOGETHER, c))


def _efficiency(what: str, names: Iterable[str], of: Callable[[str, int, Corner], float]) -> str:
    rows = [[name, *(span(over(lambda c, name=name, gpus=gpus: of(name, gpus, c))) for gpus in GPUS)] for name in names]
    return table([what, *(f"{gpus} GPUs" if gpus > 1 else "1 GPU" for gpus in GPUS)], rows)


def stragglers() -> str:
    """How much longer the slowest of N takes than the mean."""
    sigmas = (JITTER.low, 0.02, JITTER.high, 0.10)
    rows = [[f"{sigma:.2f}", *(f"{training.slowest(gpus, sigma):.3f}" for gpus in GPUS)] for sigma in sigmas]
    return table(["sigma", *map(str, GPUS)], rows)


def batches() -> str:
    """What the number of images on a GPU does to the efficiency of 64 GPUs."""
    sizes = (1, 4, 16, 32, 128)
    rows = [
        [
            name,
            *(span(over(lambda c, n=n, name=name: training.weak(counted(name), CLUSTERS[1], 64, n, c))) for n in sizes),
        ]
        for name in NAMES
    ]
    return table(["recipe", *map(str, sizes)], rows)


def published() -> str:
    """The model against figures that others have measured, none of which it was made from."""
    net = resnet50()
    rows = []
    for gpu, rate in ((A100, RESNET50_TRAINING["A100"]), (V100, RESNET50_TRAINING["V100"])):
        rows.append([f"ResNet-50 training, one {gpu.name}, images/s", f"{rate:.0f}", _rate(gpu)])
    for gpu, rate in ((V100, RESNET50_INFERENCE["V100"]), (T4, RESNET50_INFERENCE["T4"])):
        found = over(lambda c, gpu=gpu: RESNET50_BATCH / training.inference(net, gpu, RESNET50_BATCH, c))
        rows.append([f"ResNet-50 inference, one {gpu.name}, images/s", f"{rate:.0f}", span(found, 0)])
    floor = over(lambda c: training.inference(net, T4, 1, c))
    rows.append(["ResNet-50 inference, one image on a T4, ms", f"{RESNET50_FLOOR * 1e3:.1f}", span(floor, 1, 1e3)])
    eight = RESNET50_EIGHT["A100"] / RESNET50_TRAINING["A100"] / 8
    found = over(lambda c: training.weak(net, CLUSTERS[1], 8, RESNET50_BATCH, c))
    rows.append(["ResNet-50, efficiency of 8 A100 in one node", f"{eight:.2f}", span(found)])
    found = over(lambda c: _goyal(c))
    rows.append(["ResNet-50, efficiency of 256 against 8 P100", f"{GOYAL_EFFICIENCY:.2f}", span(found)])
    return table(["what", "published", "model"], rows)


def _rate(gpu: Any) -> str:
    net = resnet50()
    return span(over(lambda c: RESNET50_BATCH / training.compute(net, gpu, RESNET50_BATCH, c).total), 0)


def _goyal(corner: Corner) -> float:
    many, few = (training.step(resnet50(), BIG_BASIN, gpus, 32, corner) for gpus in (256, 8))
    return few / many


def machines() -> str:
    """The clusters, and where their figures are from."""
    rows = [
        [
            each.name,
            f"{each.gpu.flops / 1e12:.0f} TFLOP/s, {each.gpu.memory / 1e12:.2f} TB/s",
            f"{each.inside / GB:.0f}",
            f"{each.between / GB:.1f}",
            f"{each.gpu.source}; {each.source}",
        ]
        for each in CLUSTERS
    ]
    return table(["cluster", "GPU", "in a node, GB/s", "of a node, GB/s", "source"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "machines": machines,
    "networks": networks,
    "speeds": speeds,
    "published": published,
    "reduces": reduces,
    "weak-recipes": weak_by_recipe,
    "weak-clusters": weak_by_cluster,
    "batches": batches,
    "strong-recipes": strong_by_recipe,
    "strong-clusters": strong_by_cluster,
    "stragglers": stragglers,
    **{name: lambda made=made: table(*made()) for name, made in SIZINGS.items()},
}
