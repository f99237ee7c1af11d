"""Scaling on paper: a training step on N GPUs, the frames it reads, the checkpoints it saves, and queues for replicas.

Published figures have their source, measured ones the command that measured them, and what is neither is a `Range`
whose ends give the ends of every answer. Closed formulas and a seeded simulation: the same numbers every time.

Units: seconds, bytes, bytes per second, FLOP per second, unless a name says otherwise.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from networks import Network

from depthray.data.shards.format import CHANNELS, DTYPES

GB = 1e9
US = 1e-6
IMAGES, TOGETHER = 32, 1024  # images on each GPU (weak scaling), and on all of them (strong scaling)


class Range(NamedTuple):
    """What is known only to be between two ends."""

    low: float
    high: float


# ---- Machines: published figures -------------------------------------------------------------------------------------


class Gpu(NamedTuple):
    """One accelerator, with the peaks that its maker states; nobody reaches them, hence the ranges below."""

    name: str
    flops: float  # dense, 16-bit, float32 accumulation
    memory: float  # bytes/s
    source: str


class Cluster(NamedTuple):
    """Nodes of equal GPUs; the speed of a link is its line rate in one direction."""

    name: str
    gpu: Gpu
    per_node: int
    inside: float  # bytes/s of a GPU to the others of its node
    between: float  # bytes/s of a node to the others
    hop_inside: float  # seconds a step of a collective takes besides its bytes
    hop_between: float
    source: str
    start: float = 8.4 * US  # seconds before a collective's first byte


def gbit(rate: float) -> float:
    """Gbit/s -> bytes/s."""
    return rate * 1e9 / 8


H200 = Gpu("H200", 989.5e12, 4.8e12, "NVIDIA H200 data sheet (SXM): 1,979 TFLOP/s with sparsity, so half; 4.8 TB/s")
A100 = Gpu("A100", 312e12, 2.039e12, "NVIDIA A100 data sheet (SXM 80 GB): 312 TFLOP/s, 2,039 GB/s")
V100 = Gpu("V100", 125e12, 0.9e12, "NVIDIA V100 data sheet (SXM2): 125 TFLOP/s, 900 GB/s")
T4 = Gpu("T4", 65e12, 0.32e12, "NVIDIA T4 data sheet: 65 TFLOP/s, 320 GB/s")
P100 = Gpu("P100", 10.6e12, 0.732e12, "NVIDIA P100 data sheet (SXM2), float32: 10.6 TFLOP/s, 732 GB/s")

# Latencies, and Cluster.start: NCCL, src/graph/tuning.cc, ring and Simple protocol.
NVLINK_HOP, PCI_HOP, NET_HOP = 3.4 * US, 5.7 * US, 9.6 * US
NVLINK4, NVLINK3, NVLINK1, PCIE3 = 450 * GB, 300 * GB, 80 * GB, 15.75 * GB
NDR_SOURCE = "NVLink 4: 900 GB/s both ways; DGX H200 user guide: eight 400 Gbit/s InfiniBand NDR ports"
EFA_SOURCE = "NVLink 3: 600 GB/s both ways; AWS p4d.24xlarge: 400 Gbit/s EFA"
PCI_SOURCE = "PCIe 3.0 x16; IEEE 802.3 line rate"

CLUSTERS = (
    Cluster("H200 x8, NDR", H200, 8, NVLINK4, gbit(8 * 400), NVLINK_HOP, NET_HOP, NDR_SOURCE),
    Cluster("A100 x8, EFA", A100, 8, NVLINK3, gbit(400), NVLINK_HOP, NET_HOP, EFA_SOURCE),
    Cluster("A100 x8, 100 GbE", A100, 8, NVLINK3, gbit(100), NVLINK_HOP, NET_HOP, "NVLink 3; IEEE 802.3 line rate"),
    Cluster("T4 x4, 25 GbE", T4, 4, PCIE3, gbit(25), PCI_HOP, NET_HOP, PCI_SOURCE),
    Cluster("T4 x1, 10 GbE", T4, 1, PCIE3, gbit(10), PCI_HOP, NET_HOP, PCI_SOURCE),
)
BY_GPU = {cluster.gpu.name: cluster for cluster in CLUSTERS}
NODE, BIGGEST = 8, 1024  # GPUs of a node, and of the largest cluster
# Goyal et al. 2017, "Accurate, Large Minibatch SGD": Big Basin, 8 P100 by NVLink, 50 Gbit/s Ethernet, ResNet-50.
BIG_BASIN = Cluster("P100 x8, 50 GbE", P100, 8, NVLINK1, gbit(50), NVLINK_HOP, NET_HOP, "Goyal et al. 2017, section 4")
GOYAL_EFFICIENCY = 0.90  # "~90%", from 8 to 256 GPUs, 32 images each

# ResNet-50 v1.5 at 224x224 in mixed precision, images/s: NVIDIA DeepLearningExamples, PyTorch, README of that model.
RESNET50_TRAINING = {A100: 2470.0, V100: 1200.0}  # one GPU
RESNET50_EIGHT = 16621.0  # eight A100 of one node
RESNET50_INFERENCE = {V100: 3382.0, T4: 1198.0}
RESNET50_BATCH = 256
RESNET50_FLOOR = 12.8e-3  # seconds of a pass of 1 to 8 images, V100 and T4 alike: what it takes to start its kernels

# Storage and reliability.
S3_GETS = 5500.0  # requests/s a prefix: Amazon S3 user guide, "Best practices ... performance"
S3_STREAM = 87.5e6  # bytes/s a request, "85-90 MB/s": the same guide, design patterns
EFS_CLIENT, EFS_ALL = 1500 * 2**20, 60 * 2**30  # bytes/s a client and in all, largest regions: EFS user guide, quotas
NVME = 6.9 * GB  # bytes/s, sequential: data sheet of a PCIe 4.0 drive (Samsung PM9A3)
LLAMA_HOURS = 16384 * 54 * 24 / 419  # GPU-hours between interruptions: Llama 3 report (2024), 419 in 54 days
RSC_NODE_DAYS = 1000 / 6.5  # node-days (8 GPUs) between failures: Kokolis et al. 2025, cluster RSC-1
SPOT_HOURS = 730 / 0.20  # instance-hours between interruptions at 20 % a month: a class of AWS Spot Instance Advisor

# Measured on two cores of an AMD EPYC, November 2026, by check.py in this folder and by benchmarks/.
COPY_RATE = 290e6 / 0.032  # bytes/s at which a save blocks training (benchmarks/checkpoint.py)
WRITE_RATE = 290e6 / 1.0  # bytes/s of the writing thread, with digests and fsync, on this disk
RESTART = 90.0  # seconds from a lost node to the next step, a machine at hand: 78 measured, rounded up
LOAD_FIXED, LOAD_PIXEL = 0.70e-3, 20e-9  # seconds of a core an image, and a pixel of it, from shards of 320x240
# For each frame of the data set, at a worker's start (benchmarks/index.py): memory of a process, and seconds of a core,
# where the shards have no index; else bytes of the index, which a node maps once, and of a process, and seconds.
INDEX_BYTES, INDEX_SECONDS = 100, 4.1e-6
MAPPED_BYTES, OWN_BYTES, MAPPED_SECONDS = 34, 1.8, 34e-9
FORWARD = 30e-3  # seconds of a core: unet-resnet34 at 160x128 in float32, batch 8
DECODE, ENCODE = 1.1e-3, 12.8e-3  # seconds of a core: a 640x480 JPEG in, its depth as 16-bit PNG out

# Assumed.
ROOF = Range(0.6, 1.45)  # speed against the roofline of counted FLOP and bytes; published ResNet-50 runs: 1.1 to 1.44
LAUNCH = Range(10 * US, 60 * US)  # seconds an eager operation takes the host; published ResNet-50 passes: 56
LINK = Range(0.6, 0.9)  # share of the line rate that a collective reaches
JITTER = Range(0.01, 0.05)  # sigma of ln(step time) among GPUs that do the same


# ---- A training step: rooflines, DDP's overlapped all-reduce, and waiting for the slowest GPU ------------------------

SMALL = 1024  # bytes of the sums next to the gradients: running statistics, and loss and stop of a step
SMALL_SUMS = 2
OPTIMISER_BYTES = 40  # a parameter: Adam reads 16 and writes 12, the running average reads 8 and writes 4


class Corner(NamedTuple):
    """One choice out of every assumed range."""

    roof: float = 1.0
    launch: float = 0.0
    link: float = 1.0
    jitter: float = 0.0


Efficiency = Callable[[Network, Cluster, int, float, Corner], float]

CORNERS = tuple(Corner(*ends) for ends in itertools.product(ROOF, LAUNCH, LINK, JITTER))


def over(answer: Callable[[Corner], float]) -> Range:
    """The least and the greatest answer over all corners."""
    answers = [answer(corner) for corner in CORNERS]
    return Range(min(answers), max(answers))


class Compute(NamedTuple):
    """Seconds of a step that one GPU computes."""

    forward: float
    backward: float
    update: float


def compute(network: Network, gpu: Gpu, images: float, corner: Corner) -> Compute:
    """Seconds of a step on `images`: FLOP and bytes at the GPU's peaks, but never faster than the host launches."""
    fixed = network.fixed / 2 / gpu.memory

    def part(flop: float, touched: float, launches: int) -> float:
        work = images * (flop / gpu.flops + touched / gpu.memory) + fixed
        return max(work / corner.roof, launches * corner.launch)

    return Compute(
        part(network.forward, network.touched, network.launches),
        part(2 * network.forward, network.touched_back, network.launches_back),
        OPTIMISER_BYTES * network.parameters / gpu.memory,
    )


def inference(network: Network, gpu: Gpu, images: float, corner: Corner) -> float:
    """Seconds of a forward pass."""
    work = images * (network.forward / gpu.flops + network.touched / gpu.memory)
    return max(work / corner.roof, network.launches * corner.launch)


def ring(nbytes: float, ranks: int, *, speed: float, hop: float) -> float:
    """Seconds of an all-reduce around a ring: each rank sends 2 (N-1)/N of the bytes, in 2 (N-1) hops."""
    return 2 * (ranks - 1) / ranks * nbytes / speed + 2 * (ranks - 1) * hop


def tree(nbytes: float, ranks: int, *, speed: float, hop: float) -> float:
    """Seconds of an all-reduce up and down a double binary tree: twice the bytes, in 2 log2(N) hops."""
    return 2 * nbytes / speed + 2 * math.ceil(math.log2(ranks)) * hop if ranks > 1 else 0.0


def algorithms(nbytes: float, cluster: Cluster, gpus: int, link: float) -> dict[str, float]:
    """Seconds of an all-reduce by each algorithm."""
    local, nodes = min(gpus, cluster.per_node), -(-gpus // cluster.per_node)
    inside, between = cluster.inside * link, cluster.between * link
    within = ring(nbytes, local, speed=inside, hop=cluster.hop_inside)
    if nodes == 1:
        return {"ring": cluster.start + within}
    slowest_link = between if local == 1 else min(inside, between)
    hops = 2 * (gpus - nodes) * cluster.hop_inside + 2 * (nodes - 1) * cluster.hop_between
    return {
        "ring": cluster.start + ring(nbytes, gpus, speed=slowest_link, hop=0.0) + hops,
        "tree": cluster.start + within + tree(nbytes, nodes, speed=between, hop=cluster.hop_between),
        "two levels": cluster.start + within + ring(nbytes, nodes, speed=between, hop=cluster.hop_between),
    }


def all_reduce(nbytes: float, cluster: Cluster, gpus: int, link: float = 1.0) -> float:
    """Seconds by the fastest algorithm, which is what NCCL looks for."""
    return min(algorithms(nbytes, cluster, gpus, link).values()) if gpus > 1 else 0.0


@cache
def slowest(ranks: int, sigma: float) -> float:
    """Expected maximum of N lognormal times of mean 1: the integral of 1 - F(x)^N."""
    if ranks == 1 or not sigma:
        return 1.0
    z = np.linspace(-10.0, 10.0, 4001)
    log_cdf = np.log(np.maximum([0.5 * math.erfc(-each / math.sqrt(2)) for each in z.tolist()], 1e-300))
    x = np.exp(sigma * z - sigma**2 / 2)
    return float(x[0] + np.trapezoid(-np.expm1(ranks * log_cdf), x))


def step(network: Network, cluster: Cluster, gpus: int, images: float, corner: Corner) -> float:
    """Seconds of an optimiser step with `images` on each of N GPUs."""
    alone = compute(network, cluster.gpu, images, corner)
    if gpus == 1:
        return sum(alone)
    wait = slowest(gpus, corner.jitter)
    forward, backward = alone.forward * wait, alone.backward * wait
    done = 0.0
    for bucket in network.buckets:
        begins = max(done, forward + bucket.ready * backward)
        done = begins + all_reduce(bucket.bytes, cluster, gpus, corner.link)
    sums = SMALL_SUMS * all_reduce(SMALL, cluster, gpus, corner.link)
    return max(done, forward + backward) + sums + alone.update


def weak(network: Network, cluster: Cluster, gpus: int, images: float, corner: Corner) -> float:
    """Efficiency with as many images on every GPU: one GPU's step over that of N."""
    return step(network, cluster, 1, images, corner) / step(network, cluster, gpus, images, corner)


def strong(network: Network, cluster: Cluster, gpus: int, images: float, corner: Corner) -> float:
    """Efficiency with as many images on all GPUs together: the N-th part of one GPU's step over that of N."""
    return step(network, cluster, 1, images, corner) / gpus / step(network, cluster, gpus, images / gpus, corner)


def efficiencies(
    regime: Efficiency, network: Network, cluster: Cluster, images: float, counts: Sequence[int]
) -> list[Range]:
    """Weak or strong efficiency for each number of GPUs."""

    def at(gpus: int) -> Range:
        return over(lambda corner: regime(network, cluster, gpus, images, corner))

    return [at(gpus) for gpus in counts]


def images_per_second(network: Network, cluster: Cluster) -> Range:
    """What one GPU trains on."""
    return over(lambda corner: IMAGES / step(network, cluster, 1, IMAGES, corner))


# ---- Frames ----------------------------------------------------------------------------------------------------------

SHARD_LIMIT = 1e9  # bytes: 11 s of one S3 stream
SHARDS_A_NODE = 16  # at least, so that the node with one more has at most 1/16 more to do


class DataSet(NamedTuple):
    """Frames in shards, uncompressed: an HDF5 chunk, and so a read, for each array of a frame."""

    name: str
    frames: int
    size: tuple[int, int]
    keys: tuple[str, ...]

    @property
    def frame(self) -> int:
        """Bytes of a frame."""
        planes = (math.prod(CHANNELS[key]) * int(DTYPES[key][-1]) for key in self.keys)
        return sum(planes) * math.prod(self.size)

    @property
    def bytes(self) -> int:
        """Of all frames."""
        return self.frames * self.frame


MODEST = DataSet("MODEST, 224x224", 400_000, (224, 224), ("image", "background", "depth", "mask"))
FIFTY = tuple(
    DataSet(f"50 million, {width}x{height}", 50_000_000, (height, width), ("image", "depth"))
    for width, height in ((160, 128), (320, 240), (640, 480))
)


def frames_per_shard(data: DataSet, nodes: int) -> int:
    """The largest power of two that keeps a shard under its limit and leaves every node enough shards."""
    most = min(SHARD_LIMIT / data.frame, data.frames / (nodes * SHARDS_A_NODE))
    return 1 << max(0, math.floor(math.log2(most)))


def load_seconds(size: tuple[int, int]) -> float:
    """Seconds of a core to read, augment and collate a training image of (h,w)."""
    return LOAD_FIXED + LOAD_PIXEL * size[0] * size[1]


# ---- Checkpoints and failures ----------------------------------------------------------------------------------------

STATE_BYTES = 16  # a parameter: float32 weights, two moments of Adam, running average


def young(pause: float, between: float) -> float:
    """Seconds between saves that lose least: sqrt(2 d M)."""
    return math.sqrt(2 * pause * between)


def daly(pause: float, between: float) -> float:
    """The same to a higher order (Daly 2006, equation 37)."""
    if pause >= 2 * between:
        return between
    x = pause / (2 * between)
    return young(pause, between) * (1 + math.sqrt(x) / 3 + x / 9) - pause


def lost(pause: float, interval: float, between: float, restart: float = RESTART) -> float:
    """Share of the time that saving, repeated steps and restarts take."""
    return pause / interval + (interval / 2 + restart) / between


# ---- Queues for replicas ---------------------------------------------------------------------------------------------


def erlang_c(replicas: int, load: float) -> float:
    """Probability that a request waits; load is the rate times the seconds of one, in replicas."""
    if load >= replicas:
        return 1.0
    blocked = 1.0
    for number in range(1, replicas + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / replicas * (1 - blocked))


def waiting(replicas: int, load: float, *, variation: float = 0.0) -> float:
    """Mean wait in service times: Erlang C times (1 + cv^2) / 2 (Allen and Cunneen); cv is 0 for equal pictures."""
    return math.inf if load >= replicas else erlang_c(replicas, load) / (replicas - load) * (1 + variation**2) / 2


def replicas_for(rate: float, seconds: float, *, wait: float) -> int:
    """Fewest replicas whose mean wait is no more than `wait` service times."""
    load = rate * seconds
    count = max(1, math.ceil(load))
    while waiting(count, load) > wait:
        count += 1
    return count


def simulated(
    rate: float,
    replicas: int,
    seconds: Callable[[int], float],
    *,
    batch: int = 1,
    requests: int = 40_000,
    seed: int = 0,
) -> Sequence[float]:
    """Seconds from arrival to response, sorted: Poisson arrivals, and a free replica takes up to `batch` that wait."""
    rng = random.Random(seed)
    arrivals = list(itertools.accumulate(rng.expovariate(rate) for _ in range(requests)))
    free = [0.0] * replicas
    latencies: list[float] = []
    first = 0
    while first < requests:
        start = max(heapq.heappop(free), arrivals[first])
        last = first + 1
        while last < requests and last - first < batch and arrivals[last] <= start:
            last += 1
        done = start + seconds(last - first)
        heapq.heappush(free, done)
        latencies += [done - arrivals[each] for each in range(first, last)]
        first = last
    return sorted(latencies)


def quantile(times: Sequence[float], share: float) -> float:
    """A quantile of sorted times."""
    return times[min(len(times) - 1, int(share * len(times)))]
