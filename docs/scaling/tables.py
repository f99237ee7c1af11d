"""The tables and the chart of docs/scaling/README.md, by the model in model.py on the networks in networks.py.

python docs/scaling/tables.py           # print the tables
python docs/scaling/tables.py --write   # write them into the page, and draw the chart
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import chart
import model
import storage_tables
from cells import Table, span
from model import BY_GPU, CLUSTERS, GB, IMAGES, NODE, TOGETHER, Cluster, Corner, Efficiency, Gpu, Range, over
from networks import SIZES, Network, counted, resnet50

HERE = Path(__file__).resolve().parent
GPUS = (1, 8, 16, 64, 256, 1024)
COUNTS = ("1 GPU", *(f"{gpus} GPUs" for gpus in GPUS[1:]))
MARKED = r"(<!-- table {name} -->\n).*?(<!-- end -->)"


def main() -> int:
    """Print the tables, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update README.md and scaling.svg in this folder")
    if parser.parse_args().write:
        page = HERE / "README.md"
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
        (HERE / "scaling.svg").write_text(chart.svg(), encoding="utf-8")
    else:
        for name in TABLES:
            print(f"{name}\n\n{markdown(name)}\n")
    return 0


def filled(page: str) -> str:
    """The page with its tables as the model computes them."""
    for name in TABLES:
        new = rf"\g<1>{markdown(name)}\n\g<2>"
        page, times = re.subn(MARKED.format(name=name), new, page, flags=re.DOTALL)
        if times != 1:  # a table that is renamed on one side alone would silently stay as it was
            raise SystemExit(f"the page has {times} places for the table '{name}'; it needs one")
    return page


def markdown(name: str) -> str:
    """A table as Markdown."""
    headers, rows = TABLES[name]()
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


# ---- Machines, networks, and published runs --------------------------------------------------------------------------


def machines() -> Table:
    """The clusters, and the sources of their figures."""
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
    return ["cluster", "GPU", "in a node, GB/s", "of a node, GB/s", "source"], rows


def networks() -> Table:
    """What was counted."""
    rows = [
        [
            net.name,
            f"{net.size[1]}x{net.size[0]}",
            f"{net.parameters / 1e6:.1f} M",
            f"{net.forward / 1e9:.1f}",
            f"{net.touched / 1e6:.0f}",
            f"{net.launches} + {net.launches_back}",
            f"{net.gradient_bytes / 1e6:.0f} MB",
            f"{len(net.buckets)}, last {net.buckets[-1].bytes / 1e6:.1f} MB",
        ]
        for net in map(counted, SIZES)
    ]
    counts = ["parameters", "GFLOP forward", "MB touched forward", "operations", "gradients", "buckets"]
    return ["recipe", "size", *counts], rows


def speeds() -> Table:
    """Images/s of one GPU."""
    rows = [
        [name, *(span(model.images_per_second(counted(name), cluster), 0) for cluster in BY_GPU.values())]
        for name in SIZES
    ]
    return ["recipe", *BY_GPU], rows


def published() -> Table:
    """The model against figures that others have measured."""
    net, batch = resnet50(), model.RESNET50_BATCH

    def training(gpu: Gpu) -> Range:
        return over(lambda corner: batch / sum(model.compute(net, gpu, batch, corner)))

    def inference(gpu: Gpu) -> Range:
        return over(lambda corner: batch / model.inference(net, gpu, batch, corner))

    def goyal(corner: Corner) -> float:
        few, many = (model.step(net, model.BIG_BASIN, gpus, 32, corner) for gpus in (8, 256))
        return few / many

    rows = [
        *(
            [f"ResNet-50 {what}, one {gpu.name}, images/s", f"{rate:,.0f}", span(computed(gpu), 0)]
            for what, rates, computed in (
                ("training", model.RESNET50_TRAINING, training),
                ("inference", model.RESNET50_INFERENCE, inference),
            )
            for gpu, rate in rates.items()
        ),
        [
            "ResNet-50 inference, one image on a T4, ms",
            f"{model.RESNET50_FLOOR * 1e3:.1f}",
            span(over(lambda corner: model.inference(net, model.T4, 1, corner)), 1, 1e3),
        ],
        [
            "ResNet-50, efficiency of 8 A100 in one node",
            f"{model.RESNET50_EIGHT / model.RESNET50_TRAINING[model.A100] / 8:.2f}",
            span(over(lambda corner: model.weak(net, CLUSTERS[1], 8, batch, corner))),
        ],
        ["ResNet-50, efficiency of 256 against 8 P100", f"{model.GOYAL_EFFICIENCY:.2f}", span(over(goyal))],
    ]
    return ["what", "published", "model"], rows


# ---- Efficiency of training ------------------------------------------------------------------------------------------


def reduces() -> Table:
    """All-reduce of the gradients of one network at the full line rate, by algorithm."""
    net, names = counted("unet-resnet34"), ("ring", "tree", "two levels")
    rows = []
    for cluster, gpus in itertools.product(CLUSTERS, (8, 64, 1024)):
        seconds = model.algorithms(net.gradient_bytes, cluster, gpus, 1.0)
        cells = (f"{seconds[name] * 1e3:.1f}" if name in seconds else "-" for name in names)
        rows.append([cluster.name, gpus, *cells])
    return ["cluster", "GPUs", *(f"{name}, ms" for name in names)], rows


def by_recipe(efficiency: Efficiency, images: int) -> Table:
    """Efficiency of all recipes on one kind of cluster."""
    rows = [[name, *_efficiencies(efficiency, counted(name), CLUSTERS[0], images)] for name in SIZES]
    return ["recipe", *COUNTS], rows


def by_cluster(efficiency: Efficiency, recipe: str, images: int) -> Table:
    """Efficiency of one recipe on all kinds of clusters."""
    rows = [[each.name, *_efficiencies(efficiency, counted(recipe), each, images)] for each in CLUSTERS]
    return ["cluster", *COUNTS], rows


def _efficiencies(efficiency: Efficiency, net: Network, cluster: Cluster, images: int) -> list[str]:
    return [span(ends) for ends in model.efficiencies(efficiency, net, cluster, images, GPUS)]


def batches() -> Table:
    """Efficiency of 64 GPUs by the number of images on each."""
    sizes = (1, 4, 16, 32, 128)

    def cell(name: str, images: int) -> str:
        return span(over(lambda corner: model.weak(counted(name), CLUSTERS[1], 64, images, corner)))

    return ["recipe", *map(str, sizes)], [[name, *(cell(name, images) for images in sizes)] for name in SIZES]


def stragglers() -> Table:
    """How much longer the slowest of N takes than the mean."""
    sigmas = (model.JITTER.low, 0.02, model.JITTER.high, 0.10)
    rows = [[f"{sigma:.2f}", *(f"{model.slowest(gpus, sigma):.3f}" for gpus in GPUS)] for sigma in sigmas]
    return ["sigma", *map(str, GPUS)], rows


# ---- Checkpoints and serving -----------------------------------------------------------------------------------------


def saves() -> Table:
    """Intervals between saves by Young and Daly for fpn-resnet101, the largest state."""
    state = model.STATE_BYTES * counted("fpn-resnet101").parameters
    pause, written = state / model.COPY_RATE, state / model.WRITE_RATE
    gpu_hours = {
        "as Llama 3": model.LLAMA_HOURS,
        "as RSC-1": model.RSC_NODE_DAYS * 24 * NODE,
        "spot": model.SPOT_HOURS * NODE,
    }
    rows = []
    for (name, hours), gpus in itertools.product(gpu_hours.items(), (8, 64, 256, 1024)):
        between = hours * 3600 / gpus
        young, daly = model.young(pause, between), model.daly(pause, between)
        # The next save waits for the thread that writes the one before.
        lost = (model.lost(pause, max(interval, written), between) for interval in (daly, 600.0, 3600.0))
        intervals = [f"{between / 3600:,.1f} h", f"{young:.0f} s", f"{daly:.0f} s"]
        rows.append([name, gpus, *intervals, *(f"{share * 100:.2f} %" for share in lost)])
    losses = ["lost so", "lost, every 10 min", "lost, every hour"]
    return ["failures", "GPUs", "mean time between", "Young", "Daly", *losses], rows


def replicas() -> Table:
    """Replicas of unet-resnet34 for a load, with a mean wait of at most half a service time."""
    net, host = counted("unet-resnet34", (128, 160)), model.DECODE + model.ENCODE
    gpu = over(lambda corner: model.inference(net, model.T4, 8, corner) / 8)
    core = model.FORWARD + host  # one core does all, one after the other
    kinds = {
        f"1 core ({1 / core:.0f}/s)": Range(core, core),
        # GPU and cores work on different pictures at a time: the slower of them decides.
        f"T4, 4 cores ({4 / host:.0f}/s)": Range(*(max(each, host / 4) for each in gpu)),
        f"T4, cores enough ({span(Range(1 / gpu.high, 1 / gpu.low), 0)}/s)": gpu,
    }
    rows = []
    for rate in (1, 10, 100, 1000, 10_000):
        counts = (Range(*(model.replicas_for(rate, each, wait=0.5) for each in kind)) for kind in kinds.values())
        rows.append([f"{rate:,}", *(span(each, 0) for each in counts)])
    return ["images/s asked", *kinds], rows


def queue() -> Table:
    """Waiting of equal requests for replicas: formula and simulation, in service times."""
    rows = []
    for count, busy in itertools.product((1, 4, 16), (0.5, 0.7, 0.9)):
        times = model.simulated(busy * count, count, lambda _: 1.0)
        # The simulated times include the service itself, which takes 1.
        waits = [f"{model.waiting(count, busy * count):.2f}", f"{sum(times) / len(times) - 1:.2f}"]
        rows.append([count, f"{busy:.1f}", *waits, f"{model.quantile(times, 0.95):.1f}"])
    return ["replicas", "busy", "mean wait, formula", "mean wait, simulated", "95 % answered after, simulated"], rows


def batching() -> Table:
    """What batches of up to 8 do for one replica whose pass costs a start and a share for each picture."""
    rows = []
    for start, busy in itertools.product((0.0, 0.5, 0.9), (0.5, 0.9, 2.0)):

        def seconds(pictures: int, start: float = start) -> float:
            return start + (1 - start) * pictures

        most = 8 / seconds(8)
        alone = "no" if busy >= 1 else f"{1 + model.waiting(1, busy):.1f}"  # beyond it the queue grows without end
        batched = ["no", "no"]
        if busy < most:
            times = model.simulated(busy, 1, seconds, batch=8)
            batched = [f"{sum(times) / len(times):.1f}", f"{model.quantile(times, 0.95):.1f}"]
        rows.append([f"{start:.1f}", f"{busy:.1f}", f"{most:.1f}", alone, *batched])
    return ["start of a pass", "asked", "most with batches", "mean alone", "mean, batches", "95 %, batches"], rows


TABLES: dict[str, Callable[[], Table]] = {
    "machines": machines,
    "networks": networks,
    "speeds": speeds,
    "published": published,
    "reduces": reduces,
    "weak-recipes": lambda: by_recipe(model.weak, IMAGES),
    "weak-clusters": lambda: by_cluster(model.weak, "unet-resnet34", IMAGES),
    "batches": batches,
    "strong-recipes": lambda: by_recipe(model.strong, TOGETHER),
    "strong-clusters": lambda: by_cluster(model.strong, "fpn-resnet101", TOGETHER),
    "stragglers": stragglers,
    "loaders": storage_tables.loaders,
    "shards": storage_tables.shards,
    "index": storage_tables.index,
    "links": storage_tables.links,
    "storage": storage_tables.storage,
    "fetches": storage_tables.fetches,
    "saves": saves,
    "replicas": replicas,
    "queue": queue,
    "batching": batching,
}

if __name__ == "__main__":
    sys.exit(main())
