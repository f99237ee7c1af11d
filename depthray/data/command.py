"""`depthray data pack|check|stats|render`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.errors import DataError, UsageError

if TYPE_CHECKING:
    from depthray.data.sources import Source
    from depthray.sections import Data

EVERYTHING = ("image", "background", "semantics", "instances", "mask")
RECIPE = "unet-resnet34"


class Answer(NamedTuple):
    """What a word has to say: text or rich tables, and the exit code."""

    lines: Sequence[Any]
    code: int = 0


def main(argv: list[str]) -> int:
    """Run one word; 3 if `check` has found something."""
    arguments = _parse(argv)
    answer: Answer = arguments.run(arguments)
    from rich.console import Console

    # Names of files may look like rich's markup, and a pipe has no width of its own.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)
    for line in answer.lines:
        print(line) if isinstance(line, str) else console.print(line)
    return answer.code


def _parse(argv: list[str]) -> argparse.Namespace:
    """Flags by argparse, which cannot place dotted words between them; these are what it leaves over."""
    parser = _parser()
    arguments, words = parser.parse_known_args(argv)
    arguments.words = words
    for word in words:
        if word.startswith("-") or not arguments.takes_words:
            parser.error(f"unknown argument '{word}'")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="depthray data", description="Make, look at and pack data sets.")
    words = parser.add_subparsers(required=True, metavar="pack|check|stats|render")
    _pack_words(words.add_parser("pack", help="pack frames into HDF5 shards, 20 times faster to read"))
    check = words.add_parser("check", help="look at every frame for faults; exit code 3 if there are any")
    _reading_words(check, _check)
    stats = words.add_parser("stats", help="counts, depths, and the scores any model has to beat")
    _reading_words(stats, _stats)
    stats.add_argument("--protocol", default="plain", help="how scores are taken (default: plain)")
    _render_words(words.add_parser("render", help="write rendered rooms with exact depth"))
    return parser


def _source_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="where the data lies")
    parser.add_argument("--source", help="form of the data, e.g. folder or shards (default: as it looks)")
    parser.add_argument("--encoding", help="unit of stored depth, e.g. uint16_mm (the default)")
    parser.add_argument("--index", type=Path, help="index in ROOT with another name than index.csv")


def _reading_words(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], Answer]) -> None:
    _source_words(parser)
    parser.add_argument("--recipe", default=RECIPE, help=f"whose data section decides (default: {RECIPE})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "Words like data.max_depth=80 change the recipe's numbers."
    parser.set_defaults(run=run, takes_words=True)


def _pack_words(parser: argparse.ArgumentParser) -> None:
    _source_words(parser)
    parser.add_argument("out", type=Path, help="folder of the shards; a call that was interrupted goes on there")
    parser.add_argument("--frames-per-shard", type=int, default=512)
    parser.set_defaults(run=_pack, takes_words=False, recipe=RECIPE)


def _render_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", choices=("folder", "shards"), default="folder")
    parser.set_defaults(run=_render, takes_words=False)


def _pack(arguments: argparse.Namespace) -> Answer:
    from depthray.data import shards, sources

    if arguments.frames_per_shard < 1:
        raise UsageError("--frames-per-shard must be at least 1")
    section = _with_all_keys(_section(arguments))
    source = sources.open_source(section)
    provenance = {
        "name": arguments.root.resolve().name,
        "form": section.source,
        "encoding": section.encoding,
        "depthray": version("depthray"),
        "date": datetime.now(UTC).date().isoformat(),
    }
    with _bar("packing", source) as advance:
        written = shards.pack(
            source,
            arguments.out,
            provenance=provenance,
            frames_per_shard=arguments.frames_per_shard,
            advance=advance,
        )
    done = f"{len(source.frames)} frames in {len(written)} shards at {arguments.out}"
    return Answer([done, f"next: depthray data check {arguments.out}"])


def _check(arguments: argparse.Namespace) -> Answer:
    from depthray.data import sources
    from depthray.data.check import check, table

    section = _with_all_keys(_section(arguments))
    source = sources.open_source(section, verify=False)
    with _bar("checking", source) as advance:
        findings = check(source, max_depth=section.max_depth, advance=advance)
    count, scenes = len(source.frames), len({frame.scene for frame in source.frames})
    if arguments.json:
        listed = [finding._asdict() for finding in findings]
        lines: list[Any] = [json.dumps({"frames": count, "scenes": scenes, "findings": listed}, indent=1)]
    else:
        summary = f"{count} frames of {scenes} scenes: {len(findings) or 'no'} findings"
        lines = [*([table(findings)] if findings else []), summary]
    return Answer(lines, DataError.exit_code if findings else 0)


def _stats(arguments: argparse.Namespace) -> Answer:
    from depthray import protocols
    from depthray.data import sources
    from depthray.data.stats import stats, tables

    protocols.check(arguments.protocol, where="--protocol")
    section = _section(arguments)
    source = sources.open_source(section)
    with _bar("reading", source) as advance:
        found = stats(source, section, protocol=arguments.protocol, advance=advance)
    return Answer([json.dumps(found._asdict(), indent=1)] if arguments.json else tables(found))


def _render(arguments: argparse.Namespace) -> Answer:
    from depthray.data import synthetic

    limits = {"frames": (arguments.frames, 1), "size": (min(arguments.size), 1), "seed": (arguments.seed, 0)}
    for flag, (number, least) in limits.items():
        if number < least:
            raise UsageError(f"--{flag} {number}: must be at least {least}")
    synthetic.write(
        arguments.out,
        frames=arguments.frames,
        size=tuple(arguments.size),
        seed=arguments.seed,
        layout=arguments.layout,
    )
    return Answer([f"{arguments.frames} frames at {arguments.out}", f"next: depthray data stats {arguments.out}"])


def _section(arguments: argparse.Namespace) -> Data:
    """The recipe's data section, pointed at what the command line names."""
    from depthray import recipe
    from depthray.data import sources

    root = arguments.root / arguments.index if arguments.index else arguments.root
    form = arguments.source or sources.recognise(root)
    chosen: dict[str, Any] = {"source": form, "root": str(root), "inputs": ("image",)}
    chosen |= {"encoding": arguments.encoding} if arguments.encoding else {}
    section = recipe.load(arguments.recipe, arguments.words).data.model_copy(update=chosen)
    sources.check(section, where="command line")
    return section


def _with_all_keys(section: Data) -> Data:
    """The section with everything the data set has as input, so that all of it is read."""
    from depthray.data import sources

    everything = section.model_copy(update={"inputs": EVERYTHING})
    has = sources.open_source(everything, verify=False).keys
    return section.model_copy(update={"inputs": tuple(key for key in EVERYTHING if key in has)})


@contextmanager
def _bar(label: str, source: Source) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=len(source.frames))
        yield lambda: progress.advance(task)
