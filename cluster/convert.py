"""`depthray data convert`: any form of data set into shards, ranges of frames being tasks of Ray's workers.

One worker is this process, without Ray. A worker opens the data set once and then converts complete ranges; the shards
do not depend on which worker converts which range. A range whose worker is lost is converted by another.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import part_workers
from cluster.part_workers import PartOutcome
from cluster.session import ray_cluster
from depthray.cli import data
from depthray.cli.datasets import conversion
from depthray.cli.flags.command_parser import CommandParser
from depthray.config import own_code
from depthray.config.own_code import SharedCode
from depthray.data import packing, sources
from depthray.errors import UsageError

if TYPE_CHECKING:
    from depthray.config.sections import Data
    from depthray.data.packing import ConversionPlan
    from depthray.data.source import Source


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
    skipped: dict[int, dict[str, str]] = {}

    def done(number: int, faults: dict[str, str]) -> None:
        skipped[number] = faults
        advance(len(plan.frames(number)))

    shared = (section, plan, own_code.share())
    part_workers.deal_parts(convert_range_task, shared, plan.ranges, workers=workers, done=done)
    # In the order of the data set, whichever range was ready first.
    return {frame: fault for number in sorted(skipped) for frame, fault in skipped[number].items()}


def convert_range_task(shared: tuple[Data, ConversionPlan, SharedCode], number: int) -> PartOutcome:
    """Convert one range on a worker."""
    section, plan, code = shared
    own_code.receive(code)
    return part_workers.outcome_of(lambda: packing.convert_range(_open_source(section), plan, number))


@lru_cache(maxsize=1)
def _open_source(section: Data) -> Source:
    """The data set, opened once in each worker; the driver has verified it."""
    import cv2

    cv2.setNumThreads(0)  # the workers are the parallelism
    return sources.open_source(section, verify=False)
