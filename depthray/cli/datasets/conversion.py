"""The command line of a conversion into shards, which `depthray data pack`, `depthray data convert` and Ray share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthray.cli.flags import job_flags
from depthray.config import own_code
from depthray.data import packing, sources
from depthray.data.mixing import data_sets
from depthray.data.shards import index_files
from depthray.errors import UsageError, count_of
from depthray.training import preflight

if TYPE_CHECKING:
    from depthray.config.sections import Data
    from depthray.data.packing import ConversionPlan
    from depthray.data.source import Source

RECIPE = "unet-resnet34"  # its data section has the defaults


def parse_with_overrides(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse flags by argparse, which cannot place overrides between them: these are the arguments it leaves over."""
    arguments, overrides = parser.parse_known_args(argv)
    arguments.overrides = overrides
    for override in overrides:
        # What is left over may also be a flag with a typo, or an argument too many.
        if override.startswith("-") or not arguments.takes_overrides:
            parser.error(f"unknown argument '{override}'")
    return arguments


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `data convert`."""
    parser.add_argument("form", metavar="FORM", help=f"form of the data: {', '.join(sources.names())}")
    parser.add_argument("root", type=Path, help="folder of the data")
    add_shard_arguments(parser)
    parser.add_argument("--encoding", help="unit of stored depth, where the form does not state it")
    parser.add_argument("--workers", type=int, default=1, help="Ray workers; 1 (the default) does not need Ray")
    parser.add_argument("--address", help="a running Ray cluster that sees ROOT and OUT (default: a local one)")
    parser.epilog = (
        "Overrides like data.val_fraction=0.2 matter to the forms that split their frames themselves, "
        "data.recording.every=5 and others of that section to recordings."
    )
    job_flags.add_flags(parser)
    parser.set_defaults(takes_overrides=True, recipe=RECIPE, index=None)


def add_shard_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say how shards are written."""
    parser.add_argument("out", type=Path, help="folder of the shards; an interrupted conversion is resumed there")
    parser.add_argument("--frames-per-shard", type=int, default=packing.FRAMES_PER_SHARD, metavar="N")
    parser.add_argument("--skip-bad", action="store_true", help="leave out unusable frames and list them at the end")


def load_section(arguments: argparse.Namespace) -> Data:
    """The recipe's data section with the data set and the overrides of the command line."""
    root = os.path.join(arguments.root, arguments.index) if arguments.index else arguments.root
    own_code.allow([arguments.source or ""])
    form = arguments.source or sources.recognise(root)
    # Dashed flags win over the recipe, which describes training data; the inputs are selected later.
    chosen: dict[str, Any] = {"source": form, "root": str(root), "inputs": ("image",)}
    chosen |= {"encoding": arguments.encoding} if arguments.encoding else {}
    section = data_sets.one_set(preflight.load(arguments.recipe, arguments.overrides, training=False).data, **chosen)
    sources.check(section, where="command line")
    sources.check_recording(section, where="command line")
    return section


def load_convert_section(arguments: argparse.Namespace) -> Data:
    """The data section of `data convert`, where the form of the data is named."""
    own_code.allow([arguments.form])
    sources.check_name(arguments.form, where="command line", label="form ")
    arguments.source = arguments.form
    return load_section(arguments)


def plan_shards(section: Data, arguments: argparse.Namespace) -> tuple[Source, ConversionPlan]:
    """The data set of a section with all its inputs, and how it is cut into shards."""
    if arguments.frames_per_shard < 1:
        raise UsageError("--frames-per-shard must be at least 1")
    return packing.plan_section(
        section,
        arguments.out,
        name=os.path.basename(os.path.realpath(arguments.root)),  # "." and links have no name of their own
        frames_per_shard=arguments.frames_per_shard,
        skip_bad=arguments.skip_bad,
    )


def write_index(plan: ConversionPlan) -> None:
    """Write the index of the shards, by which a set of any size is opened at once."""
    packing.list_shards(plan)  # which says so where there are none
    index_files.write(plan.out)


def summarise_shards(plan: ConversionPlan, skipped: Mapping[str, str]) -> list[str]:
    """The lines to print when all shards are written."""
    shards = packing.list_shards(plan)
    frames, files = count_of(plan.total - len(skipped), "frame"), count_of(len(shards), "shard")
    counts = f"{frames} in {files} at {plan.out}"
    next_command = f"next: depthray data check {plan.out}"
    return [*packing.summarise_skipped(skipped), counts, *format_notes(plan.notes), next_command]


def format_notes(notes: Sequence[str]) -> list[str]:
    """The notes of a data set, a line each."""
    return [f"note: {note}" for note in notes]


@contextmanager
def progress_bar(label: str, source: Source) -> Iterator[Callable[[int], None]]:
    """A progress bar of the frames of a data set; see `counted_bar`."""
    with counted_bar(label, len(source.frames)) as advance:
        yield advance


@contextmanager
def counted_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere: in a job's log each update would be a line."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)
