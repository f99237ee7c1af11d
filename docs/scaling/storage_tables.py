"""The tables of docs/scaling/README.md that are about loaders, shards and storage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import model
from cells import Table, in_bytes, in_time, span
from model import BIGGEST, BY_GPU, CLUSTERS, FIFTY, GB, MODEST, NODE, Range
from networks import SIZES, counted

from depthray.data.columns.step_frames import MOST_IN_TABLE


def loaders() -> Table:
    """Cores that keep one GPU busy."""
    rows = []
    for name, size in SIZES.items():
        seconds = model.load_seconds(size)
        rates = (model.images_per_second(counted(name), cluster) for cluster in BY_GPU.values())
        rows.append([name, f"{seconds * 1e3:.1f}", *(span(rate, 1, seconds) for rate in rates)])
    return ["recipe", "ms of a core an image", *(f"cores for one {name}" for name in BY_GPU)], rows


def shards() -> Table:
    """How a data set is stored: with the default number of frames a shard, and with the suggested one."""
    rows = []
    for data, suggested in itertools.product((MODEST, *FIFTY), (False, True)):
        frames = model.frames_per_shard(data, BIGGEST // NODE) if suggested else 512
        size, count = f"{frames * data.frame / 1e6:.0f} MB", f"{math.ceil(data.frames / frames):,}"
        stored = [data.name, f"{data.frame:,}", len(data.keys), in_bytes(data.bytes)]
        rows.append([*stored, f"{frames:,}", count, size])
    return ["data set", "bytes a frame", "reads a frame", "all", "frames a shard", "shards", "size of one"], rows


def index() -> Table:
    """What each process holds of a data set before it has read a frame."""
    rows = []
    for frames in (400_000, 5_000_000, 50_000_000):
        order = frames * 8 if frames <= MOST_IN_TABLE else 0  # an int64 a frame
        memory = frames * model.INDEX_BYTES + order
        mapped, own = frames * model.MAPPED_BYTES, frames * model.OWN_BYTES + order
        without = [in_bytes(memory), in_bytes(8 * memory), f"{frames * model.INDEX_SECONDS:.0f}"]
        with_index = [in_bytes(own), in_bytes(mapped + 8 * own), f"{frames * model.MAPPED_SECONDS:.2g}"]
        rows.append([f"{frames:,}", *without, *with_index])
    columns = ["a worker without an index", "8 of a node", "s to open", "with it", "8 of a node", "s to open"]
    return ["frames", *columns], rows


def links() -> Table:
    """Frames/s that a link or a disk gives."""
    speeds = {
        "10 GbE (NFS server or node)": model.gbit(10) * model.LINK.low,
        "25 GbE": model.gbit(25) * model.LINK.low,
        "100 GbE": model.gbit(100) * model.LINK.low,
        "Amazon EFS, one client": model.EFS_CLIENT,
        "S3, one stream": model.S3_STREAM,
        "NVMe drive, PCIe 4.0": model.NVME,
    }
    sets = (MODEST, *FIFTY[1:])
    rows = [
        [name, f"{speed / GB:.2f}", *(f"{speed / data.frame:,.0f}" for data in sets)] for name, speed in speeds.items()
    ]
    return ["from", "GB/s", *(data.name for data in sets)], rows


def storage() -> Table:
    """What storage must give to H200s that train unet-resnet34."""
    rate = model.images_per_second(counted("unet-resnet34"), CLUSTERS[0])
    rows = []
    for data, gpus in itertools.product((MODEST, FIFTY[1]), (8, 64, 1024)):
        # One read for each array of a frame; S3 limits the reads of a prefix.
        prefixes = Range(*(math.ceil(each * gpus * len(data.keys) / model.S3_GETS) for each in rate))
        rows.append(
            [
                data.name,
                gpus,
                span(rate, 0, gpus / 1e3) + " k",
                span(rate, 1, NODE * data.frame / GB),
                span(rate, 1, gpus * data.frame / GB),
                span(prefixes, 0),
                " to ".join(in_time(data.frames / (each * gpus)) for each in reversed(rate)),
            ]
        )
    needs = ["images/s", "GB/s of a node", "GB/s of all", "S3 prefixes, read by frame", "one epoch"]
    return ["data set", "GPUs", *needs], rows


def fetches() -> Table:
    """Time until a data set is in the caches of the nodes: a copy for each of them, or a part for each."""
    ethernet = model.gbit(100) * model.LINK.low
    sources: dict[str, Callable[[int], float]] = {
        "NFS, one server at 100 GbE": lambda _: ethernet,
        "EFS": lambda nodes: min(nodes * model.EFS_CLIENT, model.EFS_ALL),
        "S3, nodes at 100 GbE": lambda nodes: nodes * ethernet,
    }
    rows = []
    for data, nodes in itertools.product((MODEST, FIFTY[1]), (1, 8, 128)):
        copies = (in_time(data.bytes * nodes / speed(nodes)) for speed in sources.values())
        parts = (in_time(data.bytes / speed(nodes)) for speed in sources.values())
        rows.append([data.name, nodes, *copies, *parts])
    return ["data set", "nodes", *(f"{what}, {name}" for what in ("copies", "parts") for name in sources)], rows
