"""`depthray data pack|convert|check|stats|render`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import depthray
from depthray.cli import submit_flags
from depthray.data import source as data_source
from depthray.data.sources import synthetic
from depthray.errors import DataError, UsageError, did_you_mean
from depthray.storage import remote
from depthray.training import preflight

if TYPE_CHECKING:
    from depthray.config.sections import Data
    from depthray.data.convert import ConversionPlan
    from depthray.data.source import Source

EVERYTHING = ("image", "background", "sparse", "semantics", "instances", "mask")
RECIPE = "unet-resnet34"


class CommandOutput(NamedTuple):
    """What a word has to say: text or rich tables, and the exit code."""

    lines: Sequence[Any]
    code: int = 0


def main(argv: list[str]) -> int:
    """Run one word; 3 if `check` has found something."""
    arguments = parse_arguments(argv)
    answer: CommandOutput = arguments.run(arguments)
    from rich.console import Console

    # Names of files may look like rich's markup, and a pipe has no width of its own.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)
    for line in answer.lines:
        print(line) if isinstance(line, str) else console.print(line)
    return answer.code


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    return parse_with_overrides(build_parser(), argv)


def parse_with_overrides(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Flags by argparse, which cannot place dotted words between them; these are what it leaves over."""
    arguments, words = parser.parse_known_args(argv)
    arguments.overrides = words
    for word in words:
        if word.startswith("-") or not arguments.takes_overrides:
            parser.error(f"unknown argument '{word}'")
    return arguments


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="depthray data", description="Make, look at and pack data sets.")
    words = parser.add_subparsers(required=True, metavar="pack|convert|check|stats|render")
    _add_pack_arguments(words.add_parser("pack", help="pack frames into HDF5 shards, 20 times faster to read"))
    add_convert_arguments(
        words.add_parser("convert", help="pack a form of data set that is named, on one or many workers")
    )
    check = words.add_parser("check", help="look at every frame for faults; exit code 3 if there are any")
    _add_reading_arguments(check, _check)
    stats = words.add_parser("stats", help="counts, depths, and the scores any model has to beat")
    _add_reading_arguments(stats, _stats)
    stats.add_argument("--protocol", default="plain", help="how scores are taken (default: plain)")
    _add_render_arguments(words.add_parser("render", help="write rendered rooms with exact depth"))
    return parser


def parse_location(text: str) -> Path | str:
    """Where data lies: a path, or the address of shards on an object store."""
    return remote.normalize_address(text) if remote.is_remote(text) else Path(text)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "root", type=parse_location, metavar="ROOT", help="where the data lies; shards also at s3://BUCKET/PATH"
    )
    parser.add_argument("--source", help="form of the data, e.g. folder or shards (default: as it looks)")
    parser.add_argument("--encoding", help="unit of stored depth, e.g. uint16_mm (the default)")
    parser.add_argument("--index", type=Path, help="index in ROOT with another name than index.csv")


def _add_reading_arguments(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], CommandOutput]) -> None:
    add_source_arguments(parser)
    parser.add_argument("--recipe", default=RECIPE, help=f"whose data section decides (default: {RECIPE})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "Words like data.max_depth=80 change the recipe's numbers."
    parser.set_defaults(run=run, takes_overrides=True)


def _add_pack_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add_shard_arguments(parser)
    parser.set_defaults(run=_pack, takes_overrides=False, recipe=RECIPE, form="")


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `convert`."""
    from depthray.data import sources

    parser.add_argument("form", metavar="FORM", help=f"form of the data: {', '.join(sources.names())}")
    parser.add_argument("root", type=Path, help="where the data lies")
    add_shard_arguments(parser)
    parser.add_argument("--encoding", help="unit of stored depth, where the form does not state it")
    parser.add_argument("--workers", type=int, default=1, help="Ray workers; 1 (the default) does without Ray")
    parser.add_argument("--address", help="a running Ray cluster that sees ROOT and OUT (default: a local one)")
    parser.epilog = "Words like data.val_fraction=0.2 matter to the forms that split their frames themselves."
    submit_flags.add_flags(parser)
    parser.set_defaults(run=_convert, takes_overrides=True, recipe=RECIPE, index=None)


def add_shard_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder of the shards; a call that was interrupted goes on there")
    parser.add_argument("--frames-per-shard", type=int, default=512, metavar="N")
    parser.add_argument("--skip-bad", action="store_true", help="leave out unusable frames and list them at the end")


def _add_render_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", choices=("folder", "shards"), default="folder")
    parser.set_defaults(run=_render, takes_overrides=False)


def _pack(arguments: argparse.Namespace) -> CommandOutput:
    source, made = plan_conversion(load_section(arguments), arguments)
    return convert_here(source, made)


def _convert(arguments: argparse.Namespace) -> CommandOutput:
    if arguments.workers != 1:
        raise UsageError(f"--workers {arguments.workers} needs Ray: `depthray data convert` has it, this call has not")
    source, made = plan_conversion(convert_section(arguments), arguments)
    return convert_here(source, made)


def convert_section(arguments: argparse.Namespace) -> Data:
    """The data section of `convert`: the form is named, and everything the data set has is read."""
    from depthray.data import sources

    if arguments.form not in sources.names():
        raise UsageError(f"no form '{arguments.form}'{did_you_mean(arguments.form, sources.names())}")
    arguments.source = arguments.form
    return load_section(arguments)


def plan_conversion(section: Data, arguments: argparse.Namespace) -> tuple[Source, ConversionPlan]:
    """The frames of a section with everything they have, and how they are cut into shards."""
    from depthray.data import convert, sources

    if arguments.frames_per_shard < 1:
        raise UsageError("--frames-per-shard must be at least 1")
    section = select_all_keys(section)
    source = sources.open_source(section, verify=not arguments.skip_bad)
    provenance = {
        "name": os.path.basename(os.path.realpath(arguments.root)),
        "form": section.source,
        "depthray": depthray.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        **convert.source_encodings(source),
    }
    made = convert.plan(
        source,
        arguments.out,
        provenance=provenance,
        frames_per_shard=arguments.frames_per_shard,
        encoding=convert.shard_encoding(section),
        skip_bad=arguments.skip_bad,
    )
    return source, made


def convert_here(source: Source, made: ConversionPlan) -> CommandOutput:
    """Make the shards in this process."""
    from depthray.data import convert

    with progress_bar("packing", source) as advance:
        skipped = convert.convert(source, made, advance=lambda: advance(1))
    return summarise_conversion(made, skipped)


def summarise_conversion(made: ConversionPlan, skipped: Mapping[str, str]) -> CommandOutput:
    """What there is to say of finished shards."""
    from depthray.data import convert

    shards = convert.list_shards(made)
    done = f"{made.total - len(skipped)} frames in {len(shards)} shards at {made.out}"
    return CommandOutput(
        [*convert.summarise_skipped(skipped), done, *format_notes(made.notes), f"next: depthray data check {made.out}"]
    )


def _check(arguments: argparse.Namespace) -> CommandOutput:
    from depthray.audit.check import find_faults, findings_table
    from depthray.audit.stored_values import inspect_stored_depth
    from depthray.audit.stored_values import stored_depth_table as stored_table
    from depthray.data import sources

    section = select_all_keys(load_section(arguments))
    source = sources.open_source(section, verify=False)
    with progress_bar("checking", source) as advance:
        findings = find_faults(source, max_depth=section.max_depth, advance=lambda: advance(1))
    stored, notes = inspect_stored_depth(source), data_source.notes(source)
    count, scenes = len(source.frames), len({frame.scene for frame in source.frames})
    if arguments.json:
        listed = [finding._asdict() for finding in findings]
        looks = [each._asdict() for each in stored]
        told = {"frames": count, "scenes": scenes, "findings": listed, "notes": notes, "stored": looks}
        lines: list[Any] = [json.dumps(told, indent=1)]
    else:
        summary = f"{count} frames of {scenes} scenes: {len(findings) or 'no'} findings"
        tables = [*([findings_table(findings)] if findings else []), *([stored_table(stored)] if stored else [])]
        lines = [*tables, summary, *format_notes(notes)]
    return CommandOutput(lines, DataError.exit_code if findings else 0)


def format_notes(notes: Sequence[str]) -> list[str]:
    return [f"note: {note}" for note in notes]


def _stats(arguments: argparse.Namespace) -> CommandOutput:
    from depthray.audit.stats import collect_stats, stats_tables
    from depthray.data import sources
    from depthray.evaluation import protocols

    protocols.check(arguments.protocol, where="--protocol")
    section = load_section(arguments)
    source = sources.open_source(section)
    with progress_bar("reading", source) as advance:
        found = collect_stats(source, section, protocol=arguments.protocol, advance=lambda: advance(1))
    return CommandOutput([json.dumps(found._asdict(), indent=1)] if arguments.json else stats_tables(found))


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
        [f"{arguments.frames} frames at {arguments.out}", f"next: depthray data stats {arguments.out}"]
    )


def load_section(arguments: argparse.Namespace) -> Data:
    """The recipe's data section, pointed at what the command line names."""
    from depthray.data import sources

    root = os.path.join(arguments.root, arguments.index) if arguments.index else arguments.root
    form = arguments.source or sources.recognise(root)
    chosen: dict[str, Any] = {"source": form, "root": str(root), "inputs": ("image",)}
    chosen |= {"encoding": arguments.encoding} if arguments.encoding else {}
    section = preflight.load(arguments.recipe, arguments.overrides, training=False).data.model_copy(update=chosen)
    sources.check(section, where="command line")
    return section


def select_all_keys(section: Data) -> Data:
    """The section with everything the data set has as input, so that all of it is read."""
    from depthray.data import sources

    measured = section.sparse.model_copy(update={"pattern": "stored"})
    everything = section.model_copy(update={"inputs": EVERYTHING, "sparse": measured})
    has = sources.open_source(everything, verify=False).keys
    return everything.model_copy(update={"inputs": tuple(key for key in EVERYTHING if key in has)})


@contextmanager
def progress_bar(label: str, source: Source) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=len(source.frames))
        yield lambda count: progress.advance(task, count)
