"""`depthray data convert`: any form of data set into shards, ranges of frames being tasks of Ray's workers.

One worker is this process, without Ray. A worker opens the data set once and then makes whole ranges; which worker
makes which decides nothing. A range whose worker is lost is made again by another.
"""

from __future__ import annotations

import argparse
import os
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.session import ray_cluster
from depthray.cli import data as command
from depthray.errors import DepthrayError, ResourceError, UsageError

if TYPE_CHECKING:
    from depthray.config.sections import Data
    from depthray.data.convert import ConversionPlan
    from depthray.data.source import Source


class Made(NamedTuple):
    """What became of a range: the frames that were skipped, or the user's mistake that ended it."""

    skipped: dict[str, str]
    mistake: str = ""
    exit_code: int = 0


def main(argv: list[str]) -> int:
    """Convert a data set and say where its shards lie."""
    arguments = command.parsed(build_parser(), argv)
    if arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers}: at least 1 is needed")
    if arguments.workers == 1:
        return command.main(["convert", *argv])
    # Workers need not share this process's working directory.
    arguments.root, arguments.out = Path(os.path.realpath(arguments.root)), Path(os.path.realpath(arguments.out))
    section = command.with_all_keys(command.convert_section(arguments))
    source, made = command.planned(section, arguments)
    with ray_cluster(arguments.address, workers=arguments.workers), command.bar("packing", source) as advance:
        skipped = convert_on_ray(section, made, workers=arguments.workers, advance=advance)
    for line in command.packed(made, skipped).lines:
        print(line)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="depthray data convert", description="Pack any form of data set into shards.")
    command.convert_words(parser)
    return parser


def convert_on_ray(
    section: Data, made: ConversionPlan, *, workers: int, advance: Callable[[int], None]
) -> dict[str, str]:
    """Make all ranges, as many at a time as there are workers; what was wrong with each skipped frame, by its id."""
    import ray

    cpus = int(ray.cluster_resources().get("CPU", 0))
    if workers > cpus:
        raise ResourceError(f"--workers {workers} needs {workers} CPUs, the cluster has {cpus}")
    task, shared = ray.remote(make), ray.put((section, made))
    waiting = deque(made.ranges)
    running: dict[Any, int] = {}
    found: dict[int, dict[str, str]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number = waiting.popleft()
                running[task.remote(shared, number)] = number
            (ready, *_), _ = ray.wait(list(running))
            number = running.pop(ready)
            found[number] = _result(ready)
            advance(len(made.frames(number)))
    finally:
        for unfinished in running:
            ray.cancel(unfinished)
    return {name: fault for number in sorted(found) for name, fault in found[number].items()}


def make(shared: tuple[Data, ConversionPlan], number: int) -> Made:
    """What a worker does: one range. A mistake of the user is returned, for Ray would wrap it into its own."""
    from depthray.data.convert import convert_range

    section, made = shared
    try:
        return Made(convert_range(_opened(section), made, number))
    except DepthrayError as error:
        return Made({}, str(error), error.exit_code)


@lru_cache(maxsize=1)
def _opened(section: Data) -> Source:
    """The data set, opened once in each worker; the driver has verified it."""
    import cv2

    from depthray.data import sources

    cv2.setNumThreads(0)  # the workers are the parallelism
    return sources.open_source(section, verify=False)


def _result(reference: Any) -> dict[str, str]:
    import ray

    try:
        made: Made = ray.get(reference)
    except ray.exceptions.WorkerCrashedError:
        raise ResourceError(
            "a worker was lost again and again, perhaps for want of memory; lower --workers, the same call goes on"
        ) from None
    if made.mistake:
        error = DepthrayError(made.mistake)
        error.exit_code = made.exit_code
        raise error
    return made.skipped
