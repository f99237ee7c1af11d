"""`depthray data index|pack|convert|check|stats|render|composite`. `cluster.convert` adds Ray workers to `convert`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.cli.datasets import composite, conversion, indexing
from depthray.cli.datasets.conversion import RECIPE
from depthray.cli.flags.command_parser import CommandParser
from depthray.config import own_code
from depthray.data import packing
from depthray.data import source as data_source
from depthray.data.sources import synthetic
from depthray.errors import DataError, UsageError, count_of
from depthray.storage import remote

if TYPE_CHECKING:
    from depthray.audit.edge_alignment import EdgeAlignment
    from depthray.config.sections import Data
    from depthray.data.source import Source


class CommandOutput(NamedTuple):
    """What a subcommand prints, text or rich tables, and its exit code."""

    lines: Sequence[Any]
    code: int = 0


def main(argv: list[str]) -> int:
    """Run one subcommand. Returns its exit code, which is 3 if `check` has findings."""
    arguments = parse_arguments(argv)
    output: CommandOutput = arguments.run(arguments)
    from rich.console import Console

    # Names of files may look like rich's markup.
    console = Console(markup=False, highlight=False, width=width())
    for line in output.lines:
        print(line) if isinstance(line, str) else console.print(line)
    return output.code


def width() -> int | None:
    """Letters in a line: those of the terminal, or as many as tables need in a file, which has no width."""
    return None if sys.stdout.isatty() else 160


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The arguments of `depthray data`; overrides may be anywhere among them."""
    return conversion.parse_with_overrides(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray data` and its verbs."""
    parser = CommandParser(prog="depthray data", description="Index, render, check, describe and pack data.")
    commands = parser.add_subparsers(required=True, metavar="index|pack|convert|check|stats|render|composite")
    index = commands.add_parser("index", help="write the index of two folders of files, or of a folder of shards")
    indexing.add_arguments(index)
    index.set_defaults(run=_index, takes_overrides=False)
    _add_pack_arguments(commands.add_parser("pack", help="pack frames into HDF5 shards, 20 times faster to read"))
    convert_parser = commands.add_parser("convert", help="pack a named form of data set, on one or many workers")
    conversion.add_convert_arguments(convert_parser)
    convert_parser.set_defaults(run=_convert)
    check = commands.add_parser("check", help="look at every frame for faults; exit code 3 if there are any")
    _add_reading_arguments(check, _check)
    stats = commands.add_parser("stats", help="counts, depths, and the scores any model has to beat")
    _add_reading_arguments(stats, _stats)
    stats.add_argument("--protocol", default="plain", help="how scores are taken (default: plain)")
    _add_render_arguments(commands.add_parser("render", help="write rendered rooms with exact depth"))
    pasted = commands.add_parser("composite", help="paste cut-out objects into backgrounds, with masks")
    composite.add_arguments(pasted)
    pasted.set_defaults(run=_composite, takes_overrides=False)
    return parser


def _parse_location(text: str) -> Path | str:
    """The location of data: a path, or the address of shards on an object store."""
    return remote.normalize_address(text) if remote.is_remote(text) else Path(text)


def _add_source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "root", type=_parse_location, metavar="ROOT", help="folder of the data; shards also at s3://BUCKET/PATH"
    )
    parser.add_argument("--source", help="form of the data, e.g. folder or shards (default: recognised)")
    parser.add_argument("--encoding", help="unit of stored depth, e.g. uint16_mm (the default) or uint16/5000")
    parser.add_argument("--index", type=Path, help="index in ROOT with another name than index.csv")


def _add_reading_arguments(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], CommandOutput]) -> None:
    _add_source_arguments(parser)
    parser.add_argument("--recipe", default=RECIPE, help=f"recipe whose data section is used (default: {RECIPE})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "Overrides like data.max_depth=80 change the recipe's numbers."
    parser.set_defaults(run=run, takes_overrides=True)


def _add_pack_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source_arguments(parser)
    conversion.add_shard_arguments(parser)
    parser.set_defaults(run=_pack, takes_overrides=False, recipe=RECIPE, form="")


def _add_render_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", choices=("folder", "shards"), default="folder")
    parser.set_defaults(run=_render, takes_overrides=False)


def _index(arguments: argparse.Namespace) -> CommandOutput:
    return CommandOutput(indexing.write_index(arguments))


def _pack(arguments: argparse.Namespace) -> CommandOutput:
    return _write_shards(conversion.load_section(arguments), arguments)


def _convert(arguments: argparse.Namespace) -> CommandOutput:
    # The parser is shared with the command on Ray, which comes here for a single worker alone.
    if arguments.workers != 1:
        raise UsageError(f"--workers {arguments.workers} needs Ray, which only `depthray data convert` uses")
    return _write_shards(conversion.load_convert_section(arguments), arguments)


def _write_shards(section: Data, arguments: argparse.Namespace) -> CommandOutput:
    """Write the shards in this process."""
    source, plan = conversion.plan_shards(section, arguments)
    with conversion.progress_bar("packing", source) as advance:
        skipped = packing.convert(source, plan, advance=lambda: advance(1))
    conversion.write_index(plan)
    return CommandOutput(conversion.summarise_shards(plan, skipped))


def _check(arguments: argparse.Namespace) -> CommandOutput:
    from depthray.audit.check import DataFinding, find_faults, findings_table, set_aside_masks
    from depthray.audit.edge_alignment import inspect_alignment
    from depthray.audit.stored_values import inspect_stored_depth, stored_depth_lines
    from depthray.data import sources

    # All maps of the frames, whether the recipe uses them or not.
    section = packing.select_all_inputs(conversion.load_section(arguments))
    # Unverified: faults are findings here, all of them, not the error of the first.
    source = sources.open_source(section, verify=False)
    with conversion.progress_bar("checking", source) as advance:
        findings = find_faults(source, max_depth=section.max_depth, advance=lambda: advance(1))
    stored, left_out = inspect_stored_depth(source), data_source.notes(source)
    edges = inspect_alignment(source)
    findings += [
        DataFinding("misaligned", name, each.describe()) for name, each in edges.items() if each.verdict != "agree"
    ]
    findings, of_masks = set_aside_masks(source, findings)
    notes = [*left_out, *of_masks, *_training_notes(source, section), *_edge_notes(edges)]
    count, scenes = len(source.frames), len({frame.scene for frame in source.frames})
    if arguments.json:
        report = {
            "frames": count,
            "scenes": scenes,
            "findings": [finding._asdict() for finding in findings],
            "notes": notes,
            "stored": [each._asdict() for each in stored],
            "edges": {name: each._asdict() for name, each in edges.items()},
        }
        lines: list[Any] = [json.dumps(report, indent=1)]
    else:
        found = count_of(len(findings), "finding") if findings else "no findings"
        summary = f"{count_of(count, 'frame')} of {count_of(scenes, 'scene')}: {found}"
        table = [findings_table(findings, below=str(arguments.root))] if findings else []
        lines = [*table, *stored_depth_lines(stored), summary, *conversion.format_notes(notes[::-1])]
    return CommandOutput(lines, DataError.exit_code if findings else 0)  # so that scripts stop


def _edge_notes(edges: Mapping[str, EdgeAlignment]) -> list[str]:
    """How edges of depth and colour agree, and frames in which they do not."""
    return [
        (f"{name}: " if name else "")
        + each.describe()
        + (f", but for {', '.join(each.doubtful[:3])}" if each.doubtful else "")
        for name, each in edges.items()
        if each.verdict == "agree"
    ]


def _training_notes(source: Source, section: Data) -> list[str]:
    """Why training would refuse the data set, though no frame has a fault; scoring does not need two sides."""
    from depthray.data.split import split

    try:
        split(source.frames, section)
    except DataError as error:
        return [f"not yet for training: {error}"]
    return []


def _stats(arguments: argparse.Namespace) -> CommandOutput:
    from depthray.audit.stats import collect_stats, stats_tables
    from depthray.data import sources
    from depthray.evaluation import protocols

    own_code.allow([arguments.protocol])
    protocols.check(arguments.protocol, where="--protocol")
    section = conversion.load_section(arguments)
    source = sources.open_source(section)
    with conversion.progress_bar("reading", source) as advance:
        stats = collect_stats(source, section, protocol=arguments.protocol, advance=lambda: advance(1))
    # Depth is all that was read; people ask what there is.
    stats = stats._replace(keys=sorted({*stats.keys, *packing.select_all_inputs(section).inputs}))
    return CommandOutput([json.dumps(stats._asdict(), indent=1)] if arguments.json else stats_tables(stats))


def _composite(arguments: argparse.Namespace) -> CommandOutput:
    return CommandOutput(composite.write_composites(arguments))


def _render(arguments: argparse.Namespace) -> CommandOutput:
    limits = {"frames": (arguments.frames, 1), "size": (min(arguments.size), 1), "seed": (arguments.seed, 0)}
    for flag, (number, least) in limits.items():
        if number < least:
            raise UsageError(f"--{flag} {number}: must be at least {least}")
    synthetic.write_rooms(
        arguments.out,
        frames=arguments.frames,
        size=tuple(arguments.size),
        seed=arguments.seed,
        layout=arguments.layout,
    )
    return CommandOutput(
        [f"{count_of(arguments.frames, 'frame')} at {arguments.out}", f"next: depthray data stats {arguments.out}"]
    )
