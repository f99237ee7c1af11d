"""`depthray evaluate`: score a checkpoint, print the tables, write them and a sheet of frames. Also under torchrun."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from depthray.cli.flags import job_flags, spread_flags, trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.cli.scoring import card
from depthray.config import own_code
from depthray.config import recipe as recipes
from depthray.config.recipe import absolute_path
from depthray.config.sections import Recipe
from depthray.data.mixing import data_sets
from depthray.errors import UsageError
from depthray.evaluation.protocols import PROTOCOLS
from depthray.runs import layout, locate
from depthray.runtimes.open import read_recipe
from depthray.storage.remote import is_remote
from depthray.training.preflight import check


def main(argv: list[str]) -> int:
    """Score a checkpoint as the command line asks."""
    # Intermixed: overrides may stand anywhere among the flags.
    arguments = build_parser().parse_intermixed_args(argv)
    # Only now: --help need not wait for torch.
    from depthray import distributed
    from depthray.evaluation import report
    from depthray.evaluation.evaluate import evaluate_checkpoint

    device = distributed.start()
    try:
        path = locate.resolve(arguments.checkpoint)
        recipe = recipe_of(path, arguments)
        spread = spread_flags.given(arguments.confidence, arguments.ensemble)
        result = evaluate_checkpoint(
            path, recipe, side=arguments.split, device=device, trust=arguments.trust, spread=spread
        )
        if distributed.is_main():
            name = f"{arguments.split}-{result.evaluation.protocol.name}"
            # The copy of a remote checkpoint is in the cache, where nobody looks for results.
            out = arguments.out or layout.evaluation(path, name, remote=is_remote(arguments.checkpoint))
            result.write(out)
            summary = result.evaluation.summary()
            print_markdown(report.markdown(summary, scenes=5))
            pictures = "sheet.png and confidence.png" if "confidence" in summary else "sheet.png"
            print(f"written: {out}/evaluation.json, .md, .csv{',' if 'confidence' in summary else ' and'} {pictures}")
            if not arguments.out and not is_remote(arguments.checkpoint):
                card.refresh(path)
    finally:
        distributed.stop()
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray evaluate`."""
    parser = CommandParser(
        prog="depthray evaluate",
        description="Score a checkpoint under a named protocol, overall and by range of depth, source and scene.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_frames(parser)
    spread_flags.add_flags(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default: in the run's folder")
    job_flags.add_flags(parser)
    return parser


def _epilog() -> str:
    """What can be overridden, and every protocol with what it scores."""
    overrides = (
        "Overrides: eval.protocol=nyu-bts, data.encoding=uint16_mm and whatever else of data.* and eval.* differs."
    )
    width = max(map(len, PROTOCOLS))
    indent = " " * (width + 4)
    lines = [
        textwrap.fill(protocol.about, 110, initial_indent=f"  {name:{width}}  ", subsequent_indent=indent)
        for name, protocol in PROTOCOLS.items()
    ]
    return "\n".join([overrides, "", "Protocols:", *lines])


def add_frames(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which checkpoint is scored and on which frames, for every command that calls `recipe_of`."""
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, an export, or a run: its best checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the checkpoint's recipe")
    parser.add_argument("--data", metavar="PATH", help="the frames; default: those the recipe names")
    parser.add_argument("--source", help="form of the frames: folder, ./frames.py, ...; default: as PATH looks")
    parser.add_argument("--split", default="val", help="train, val, test or all; default: val")
    trust.add_flag(parser)


def recipe_of(path: Path, arguments: argparse.Namespace) -> Recipe:
    """The checkpoint's recipe with the overrides and the path of the frames applied."""
    from depthray.data import sources

    fixed = [key for key in arguments.overrides if not key.startswith(("data.", "eval."))]
    if fixed:
        raise UsageError(f"{fixed[0]}: an evaluation can override data.* and eval.* only; the rest is the checkpoint's")
    recipe = recipes.override(read_recipe(path, trust=arguments.trust), arguments.overrides, where=str(path))
    changes: dict[str, Any] = {}
    if arguments.data:
        form = arguments.source or sources.recognise(arguments.data)
        changes = {"root": absolute_path(arguments.data), "source": form}
    elif arguments.source:
        if recipe.data.sets:
            raise UsageError(f"--source {arguments.source} is the form of --data PATH, which is not given")
        changes = {"source": arguments.source}
    own_code.allow([arguments.source or ""])
    given = [override.partition("=")[0] for override in arguments.overrides]
    # Other frames may be of another camera.
    same_camera = "data.intrinsics" in given or not ("data.root" in given or "root" in changes)
    changes["intrinsics"] = recipe.data.intrinsics if same_camera else None
    if changes != {"intrinsics": recipe.data.intrinsics}:
        recipe = data_sets.without_sets(recipe, **changes)
    if arguments.source:
        sources.check_name(arguments.source, where="--source")
    if any(key.startswith("data.recording.") for key in given):  # those of the run are of the data of the run
        sources.check_recording(recipe.data, where="command line")
    return check(recipe, where=str(path), training=False)
