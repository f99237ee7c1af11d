"""`depthray data convert`: any form of data set into shards, ranges of frames being tasks of Ray's workers.

One worker is this process, without Ray. A worker opens the data set once and then converts complete ranges; the shards
do not depend on which worker converts which range. A range whose worker is lost is converted by another.
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
from depthray.cli import data
from depthray.cli.datasets import conversion
from depthray.cli.flags.command_parser import CommandParser
from depthray.config import own_code
from depthray.config.own_code import SharedCode
from depthray.data import packing, sources
from depthray.errors import DepthrayError, ResourceError, UsageError

if TYPE_CHECKING:
    from depthray.config.sections import Data
    from depthray.data.packing import ConversionPlan
    from depthray.data.source import Source


class RangeResult(NamedTuple):
    """The frames of a range that were skipped, by id, or the user's error that ended it."""

    skipped: dict[str, str]
    error: str = ""
    exit_code: int = 0


def main(argv: list[str]) -> int:
    """Convert a data set and print where its shards are."""
    arguments = conversion.parse_with_overrides(build_parser(), argv)
    if arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers}: at least 1 is needed")
    if arguments.workers == 1:  # starting Ray takes longer than many conversions
        return data.main(["convert", *argv])
    # Workers need not share this process's working directory.
    arguments.root, arguments.out = Path(os.path.realpath(arguments.root)), Path(os.path.realpath(arguments.out))
    # With its inputs already selected, so that no worker has to look for them in the files again.
    section = packing.select_all_inputs(conversion.load_convert_section(arguments))
    source, plan = conversion.plan_shards(section, arguments)
    with (
        ray_cluster(arguments.address, workers=arguments.workers),
        conversion.progress_bar("packing", source) as advance,
    ):
        skipped = convert_on_ray(section, plan, workers=arguments.workers, advance=advance)
    conversion.write_index(plan)
    for line in conversion.summarise_shards(plan, skipped):
        print(line)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray data convert` where it runs on Ray."""
    parser = CommandParser(prog="depthray data convert", description="Pack any form of data set into shards.")
    conversion.add_convert_arguments(parser)
    return parser


def convert_on_ray(
    section: Data, plan: ConversionPlan, *, workers: int, advance: Callable[[int], None]
) -> dict[str, str]:
    """Convert all ranges, one a worker at a time. Returns the fault of each skipped frame by its id."""
    import ray

    cpus = int(ray.cluster_resources().get("CPU", 0))
    if workers > cpus:
        raise ResourceError(f"--workers {workers} needs {workers} CPUs, the cluster has {cpus}")
    task = ray.remote(convert_range_task)
    shared = ray.put((section, plan, own_code.share()))  # stored once, not sent with every task
    waiting = deque(plan.ranges)
    running: dict[Any, int] = {}
    skipped: dict[int, dict[str, str]] = {}
    try:
        while waiting or running:
            # Not all at once: a cluster with more CPUs than --workers would run more.
            while waiting and len(running) < workers:
                number = waiting.popleft()
                running[task.remote(shared, number)] = number
            (ready, *_), _ = ray.wait(list(running))
            number = running.pop(ready)
            skipped[number] = _get_skipped(ready)
            advance(len(plan.frames(number)))
    finally:  # on an error or Ctrl-C; a cluster outlives this process, and would finish the tasks
        for unfinished in running:
            ray.cancel(unfinished)
    # In the order of the data set, whichever range was ready first.
    return {frame: fault for number in sorted(skipped) for frame, fault in skipped[number].items()}


def convert_range_task(shared: tuple[Data, ConversionPlan, SharedCode], number: int) -> RangeResult:
    """Convert one range on a worker. A user's error is returned, for Ray would wrap it in an error of its own."""
    section, plan, code = shared
    own_code.receive(code)
    try:
        return RangeResult(packing.convert_range(_open_source(section), plan, number))
    except DepthrayError as error:
        return RangeResult({}, str(error), error.exit_code)


@lru_cache(maxsize=1)
def _open_source(section: Data) -> Source:
    """The data set, opened once in each worker; the driver has verified it."""
    import cv2

    cv2.setNumThreads(0)  # the workers are the parallelism
    return sources.open_source(section, verify=False)


def _get_skipped(reference: Any) -> dict[str, str]:
    import ray

    try:
        result: RangeResult = ray.get(reference)
    except ray.exceptions.WorkerCrashedError:  # after Ray's own retries of the task
        raise ResourceError(
            "a worker was lost repeatedly, perhaps for lack of memory; lower --workers, the same command resumes"
        ) from None
    if result.error:
        error = DepthrayError(result.error)
        error.exit_code = result.exit_code
        raise error
    return result.skipped
