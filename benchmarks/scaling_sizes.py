"""Sizing: cores for loaders, shards, bandwidth of storage, save points, replicas. Each gives a head and rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import scaling_machines as m
import scaling_training as training
import scaling_upkeep as upkeep
from scaling_networks import SIZES, counted
from scaling_training import over
from scaling_upkeep import FIFTY, MODEST

IMAGES, NODE, BIGGEST = 32, 8, 1024
SETS = (MODEST, *FIFTY)
Table = tuple[list[str], list[list[Any]]]


def loaders() -> Table:
    """Cores that keep one GPU busy."""
    gpus = {each.gpu.name: each for each in m.CLUSTERS}
    rows = []
    for name, size in SIZES.items():
        seconds = load_seconds(size)
        cells = [_span(m.Range(*(rate * seconds for rate in _rates(name, cluster)))) for cluster in gpus.values()]
        rows.append([name, f"{seconds * 1e3:.1f}", *cells])
    return ["recipe", "ms of a core an image", *(f"cores for one {name}" for name in gpus)], rows


def load_seconds(size: tuple[int, int]) -> float:
    """Seconds of a core to read, change and collate a training image of (h,w)."""
    return m.LOAD_FIXED + m.LOAD_PIXEL * size[0] * size[1]


def _rates(name: str, cluster: m.Cluster) -> m.Range:
    """Images/s that one GPU takes."""
    return over(lambda c: IMAGES / training.step(counted(name), cluster, 1, IMAGES, c))


def shards() -> Table:
    """How a data set lies on disk, and what its index takes."""
    head = ["data set", "bytes a frame", "reads a frame", "all", "frames a shard", "shards", "size of one"]
    rows = []
    for data, suggested in itertools.product(SETS, (False, True)):
        each = upkeep.frames_per_shard(data, BIGGEST // NODE) if suggested else 512
        size = f"{each * data.frame / 1e6:.0f} MB"
        count = f"{math.ceil(data.frames / each):,}"
        rows.append([data.name, f"{data.frame:,}", len(data.keys), _bytes(data.bytes), f"{each:,}", count, size])
    return head, rows


def index() -> Table:
    """What each process holds of a data set before it has read a frame."""
    head = [
        "frames",
        "index in memory",
        "seconds to open",
        "order of an epoch",
        "8 workers a node, no loader processes",
    ]
    rows = []
    for frames in (400_000, 5_000_000, 50_000_000):
        held = frames * m.INDEX_BYTES
        cells = [_bytes(held), f"{frames * m.INDEX_SECONDS:.0f}", _bytes(frames * 8), _bytes(8 * (held + frames * 8))]
        rows.append([f"{frames:,}", *cells])
    return head, rows


def storage() -> Table:
    """What storage must give to H200s that train unet-resnet34."""
    head = ["data set", "GPUs", "images/s", "GB/s of a node", "GB/s of all", "S3 prefixes, read by frame", "one epoch"]
    rate = _rates("unet-resnet34", m.CLUSTERS[0])
    rows = []
    for data, gpus in itertools.product((MODEST, FIFTY[1]), (8, 64, 1024)):
        images = m.Range(*(each * gpus for each in rate))
        rows.append(
            [
                data.name,
                gpus,
                _span(images, 0, 1e-3) + " k",
                _span(m.Range(*(each * NODE * data.frame / m.GB for each in rate))),
                _span(m.Range(*(each * data.frame / m.GB for each in images))),
                _span(m.Range(*(math.ceil(each * len(data.keys) / m.S3_GETS) for each in images)), 0),
                " to ".join(_time(data.frames / each) for each in reversed(images)),
            ]
        )
    return head, rows


def fetches() -> Table:
    """Time until a data set is in the caches of the nodes: a copy for each of them, or a part for each."""
    sources: dict[str, Callable[[int], float]] = {
        "NFS, one server at 100 GbE": lambda _: m.gbit(100) * m.LINK.low,
        "EFS": lambda nodes: min(nodes * m.EFS_CLIENT, m.EFS_ALL),
        "S3, nodes at 100 GbE": lambda nodes: nodes * m.gbit(100) * m.LINK.low,
    }
    rows = []
    for data, nodes in itertools.product((MODEST, FIFTY[1]), (1, 8, 128)):
        copies = [_time(data.bytes * nodes / speed(nodes)) for speed in sources.values()]
        parts = [_time(data.bytes / speed(nodes)) for speed in sources.values()]
        rows.append([data.name, nodes, *copies, *parts])
    return [
        "data set",
        "nodes",
        *(f"copies, {name}" for name in sources),
        *(f"parts, {name}" for name in sources),
    ], rows


def links() -> Table:
    """Frames/s that a link or a disk gives."""
    speeds = {
        "10 GbE (NFS server or node)": m.gbit(10) * m.LINK.low,
        "25 GbE": m.gbit(25) * m.LINK.low,
        "100 GbE": m.gbit(100) * m.LINK.low,
        "Amazon EFS, one client": m.EFS_CLIENT,
        "S3, one stream": m.S3_STREAM,
        "NVMe drive, PCIe 4.0": m.NVME,
    }
    sets = (MODEST, FIFTY[1], FIFTY[2])
    rows = [
        [name, f"{speed / m.GB:.2f}", *(f"{speed / data.frame:,.0f}" for data in sets)]
        for name, speed in speeds.items()
    ]
    return ["from", "GB/s", *(data.name for data in sets)], rows


def saves() -> Table:
    """Save points by Young and Daly for fpn-resnet101, the largest state."""
    state = upkeep.STATE_BYTES * counted("fpn-resnet101").parameters
    pause, written = state / m.COPY_RATE, state / m.WRITE_RATE
    rates = {"as Llama 3": m.LLAMA_HOURS, "as RSC-1": m.RSC_NODE_DAYS * 24 * NODE, "spot": m.SPOT_HOURS * NODE}
    rows = []
    for (name, hours), gpus in itertools.product(rates.items(), (8, 64, 256, 1024)):
        between = hours * 3600 / gpus
        best = upkeep.daly(pause, between)
        each = [f"{upkeep.lost(pause, max(at, written), between) * 100:.2f} %" for at in (best, 600.0, 3600.0)]
        rows.append(
            [name, gpus, f"{between / 3600:,.1f} h", f"{upkeep.young(pause, between):.0f} s", f"{best:.0f} s", *each]
        )
    head = [
        "failures",
        "GPUs",
        "mean time between",
        "Young",
        "Daly",
        "lost so",
        "lost, every 10 min",
        "lost, every hour",
    ]
    return head, rows


def replicas() -> Table:
    """Replicas of unet-resnet34 for a load, with a mean wait of at most half a service time."""
    net = counted("unet-resnet34", (128, 160))
    host = m.DECODE + m.ENCODE
    gpu = over(lambda c: training.inference(net, m.T4, 8, c) / 8)
    kinds = {
        f"1 core ({1 / (m.FORWARD + host):.0f}/s)": m.Range(m.FORWARD + host, m.FORWARD + host),
        f"T4, 4 cores ({4 / host:.0f}/s)": m.Range(*(max(each, host / 4) for each in gpu)),
        f"T4, cores enough ({_span(m.Range(1 / gpu.high, 1 / gpu.low), 0)}/s)": gpu,
    }
    rows = []
    for rate in (1, 10, 100, 1000, 10_000):
        cells = (m.Range(*(upkeep.replicas_for(rate, each, wait=0.5) for each in kind)) for kind in kinds.values())
        rows.append([f"{rate:,}", *(_span(each, 0) for each in cells)])
    return ["images/s asked", *kinds], rows


def queue() -> Table:
    """Waiting of equal requests before replicas: formula and simulation, in service times."""
    rows = []
    for count, busy in itertools.product((1, 4, 16), (0.5, 0.7, 0.9)):
        times = upkeep.simulated(busy * count, count, lambda _: 1.0)
        mean = sum(times) / len(times) - 1
        cells = [f"{upkeep.waiting(count, busy * count):.2f}", f"{mean:.2f}", f"{upkeep.share(times, 0.95):.1f}"]
        rows.append([count, f"{busy:.1f}", *cells])
    return ["replicas", "busy", "mean wait, formula", "mean wait, simulated", "95 % answered after, simulated"], rows


def batching() -> Table:
    """What batches of up to 8 do for one replica whose pass costs a start and a share for each picture."""
    rows = []
    for start, busy in itertools.product((0.0, 0.5, 0.9), (0.5, 0.9, 2.0)):
        times = upkeep.simulated(busy, 1, lambda n, start=start: start + (1 - start) * n, batch=8)
        alone = "no" if busy >= 1 else f"{1 + upkeep.waiting(1, busy):.1f}"
        most = 8 / (start + (1 - start) * 8)
        full = busy >= most
        cells = ["no", "no"] if full else [f"{sum(times) / len(times):.1f}", f"{upkeep.share(times, 0.95):.1f}"]
        rows.append([f"{start:.1f}", f"{busy:.1f}", f"{most:.1f}", alone, *cells])
    return ["start of a pass", "asked", "most with batches", "mean alone", "mean, batches", "95 %, batches"], rows


def _span(found: m.Range, digits: int = 1, factor: float = 1.0) -> str:
    low, high = (f"{value * factor:,.{digits}f}" for value in found)
    return low if low == high else f"{low}-{high}"


def _bytes(count: float) -> str:
    return (
        f"{count / 1e12:.1f} TB"
        if count >= 1e12
        else f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.0f} MB"
    )


def _time(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


SIZINGS: dict[str, Callable[[], Table]] = {
    "loaders": loaders,
    "shards": shards,
    "index": index,
    "links": links,
    "storage": storage,
    "fetches": fetches,
    "saves": saves,
    "replicas": replicas,
    "queue": queue,
    "batching": batching,
}
