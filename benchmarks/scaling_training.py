"""How long a training step takes on N GPUs: rooflines, DDP's overlapped all-reduce, and waiting for the slowest.

Closed formulas, so the same numbers everywhere. What is not known is a range, and so are the answers: `over` takes the
least and the greatest over all corners of the ranges.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from scaling_machines import JITTER, LAUNCH, LINK, ROOF, Cluster, Gpu, Range
from scaling_networks import Network

SMALL = 1024  # bytes of the sums beside the gradients: running statistics, and loss and stop of a step
SMALL_SUMS = 2
OPTIMISER_BYTES = 40  # a parameter: Adam reads 16 and writes 12, the running average reads 8 and writes 4


class Corner(NamedTuple):
    """One choice out of every range."""

    roof: float = 1.0
    launch: float = 0.0
    link: float = 1.0
    jitter: float = 0.0


CORNERS = tuple(Corner(*ends) for ends in itertools.product(ROOF, LAUNCH, LINK, JITTER))


def over(answer: Callable[[Corner], float]) -> Range:
    """The least and the greatest answer over all corners."""
    found = [answer(corner) for corner in CORNERS]
    return Range(min(found), max(found))


class Compute(NamedTuple):
    """Seconds of one GPU."""

    forward: float
    backward: float
    update: float

    @property
    def total(self) -> float:
        """Of a step without others."""
        return sum(self)


def compute(network: Network, gpu: Gpu, images: float, corner: Corner) -> Compute:
    """Seconds of a step on `images`: FLOP and bytes at the GPU's peaks, but never faster than the host starts them."""
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


def ways(nbytes: float, cluster: Cluster, gpus: int, link: float) -> dict[str, float]:
    """Seconds of an all-reduce by each way there is."""
    local, nodes = min(gpus, cluster.per_node), -(-gpus // cluster.per_node)
    inside, between = cluster.inside * link, cluster.between * link
    within = ring(nbytes, local, speed=inside, hop=cluster.hop_inside)
    if nodes == 1:
        return {"ring": cluster.start + within}
    slowest = between if local == 1 else min(inside, between)
    hops = 2 * (gpus - nodes) * cluster.hop_inside + 2 * (nodes - 1) * cluster.hop_between
    return {
        "ring": cluster.start + ring(nbytes, gpus, speed=slowest, hop=0.0) + hops,
        "tree": cluster.start + within + tree(nbytes, nodes, speed=between, hop=cluster.hop_between),
        "two levels": cluster.start + within + ring(nbytes, nodes, speed=between, hop=cluster.hop_between),
    }


def all_reduce(nbytes: float, cluster: Cluster, gpus: int, link: float = 1.0) -> float:
    """Seconds of the fastest way, which is what NCCL looks for."""
    return min(ways(nbytes, cluster, gpus, link).values()) if gpus > 1 else 0.0


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
        return alone.total
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
