"""What goes on around the steps: frames on disks and links, save points and failures, queues before replicas."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from scaling_machines import RESTART

from depthray.data.shards import CHANNELS, DTYPES

STATE_BYTES = 16  # a parameter: float32 weights, two moments of Adam, running average
SHARD_LIMIT = 1e9  # bytes: 11 s of one S3 stream
SHARDS_A_NODE = 16  # at least, so that the node with one more has at most 1/16 more to do


class DataSet(NamedTuple):
    """Frames in shards, uncompressed."""

    name: str
    frames: int
    size: tuple[int, int]
    keys: tuple[str, ...]

    def chunk(self, key: str) -> int:
        """Bytes of a frame's array, which is one HDF5 chunk and one read."""
        planes = math.prod(CHANNELS[key]) * int(DTYPES[key][-1])
        return planes * math.prod(self.size)

    @property
    def frame(self) -> int:
        """Bytes of a frame."""
        return sum(self.chunk(key) for key in self.keys)

    @property
    def bytes(self) -> int:
        """Of all."""
        return self.frames * self.frame


MODEST = DataSet("MODEST, 224x224", 400_000, (224, 224), ("image", "background", "depth", "mask"))
FIFTY = tuple(
    DataSet(f"50 million, {width}x{height}", 50_000_000, (height, width), ("image", "depth"))
    for width, height in ((160, 128), (320, 240), (640, 480))
)


def frames_per_shard(data: DataSet, nodes: int) -> int:
    """The largest power of two that keeps a shard under its limit and leaves every node enough shards."""
    most = min(SHARD_LIMIT / data.frame, data.frames / (nodes * SHARDS_A_NODE))
    return int(2 ** max(0, math.floor(math.log2(most))))


def young(pause: float, between: float) -> float:
    """Seconds between save points that lose least: sqrt(2 d M)."""
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
    """Seconds from arrival to answer, sorted: Poisson arrivals, and a free replica takes up to `batch` that wait."""
    rng = random.Random(seed)
    arrivals, now = [], 0.0
    for _ in range(requests):
        now += rng.expovariate(rate)
        arrivals.append(now)
    free = [0.0] * replicas
    answered: list[float] = []
    first = 0
    while first < requests:
        start = max(heapq.heappop(free), arrivals[first])
        last = first + 1
        while last < requests and last - first < batch and arrivals[last] <= start:
            last += 1
        done = start + seconds(last - first)
        heapq.heappush(free, done)
        answered += [done - arrivals[each] for each in range(first, last)]
        first = last
    return sorted(answered)


def share(times: Sequence[float], quantile: float) -> float:
    """A quantile of sorted times."""
    return times[min(len(times) - 1, int(quantile * len(times)))]
