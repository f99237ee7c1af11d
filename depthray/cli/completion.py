"""`depthray completion`: the error of a completion checkpoint against the number of sparse samples it is given."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.evaluate import add_frames, recipe_of
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.errors import UsageError
from depthray.runs import layout, locate

if TYPE_CHECKING:  # torch takes seconds to import
    import torch

    from depthray.config.sections import Recipe

SAMPLES = (0, 5, 50, 200, 500, 5000)


def main(argv: list[str]) -> int:
    """Score a checkpoint at each number of samples as the command line asks."""
    arguments = build_parser().parse_intermixed_args(argv)
    # Only now: --help need not wait for torch.
    from depthray import distributed
    from depthray.evaluation.completion import curve, curve_report

    if arguments.holes is not None and arguments.holes < 1:
        raise UsageError(f"--holes {arguments.holes}: give a number of frames above 0")
    if arguments.holes and arguments.samples:
        raise UsageError("--samples cannot be combined with --holes, which gives all but holes")
    path = locate.resolve(arguments.checkpoint)
    recipe = recipe_of(path, arguments)
    curve.check(recipe, where=str(arguments.checkpoint))
    device = distributed.start()
    try:
        if arguments.holes:
            return _fill_holes(path, recipe, arguments, device)
        scored = curve.completion_curve(
            path, recipe, arguments.samples or SAMPLES, side=arguments.split, device=device, trust=arguments.trust
        )
        if distributed.is_main():
            out = arguments.out or layout.evaluation(path, f"{arguments.split}-completion")
            curve_report.write(scored, out)
            print_markdown(curve_report.markdown(scored))
            print(f"written: {out}/completion.md, .csv, .json and .png, and regions.png")
    finally:
        distributed.stop()
    return 0


def _fill_holes(path: Path, recipe: Recipe, arguments: argparse.Namespace, device: torch.device) -> int:
    """Pictures and scores of filled holes, in place of the curve."""
    from depthray import distributed
    from depthray.evaluation.completion import filled_holes

    if distributed.world_size() > 1:
        raise UsageError("--holes is for one process")
    filled = filled_holes.fill(
        path, recipe, frames=arguments.holes, side=arguments.split, device=device, trust=arguments.trust
    )
    out = arguments.out or layout.evaluation(path, f"{arguments.split}-holes")
    filled_holes.write(filled, out)
    print_markdown(filled_holes.markdown(filled))
    print(f"written: {out}/holes.png, .md and .json")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray completion`."""
    parser = CommandParser(
        prog="depthray completion",
        description="Error of a checkpoint that takes sparse depth, against the number of samples a frame.",
        epilog="Overrides: data.sparse.pattern=grid, data.sparse.noise=0.02, eval.protocol=nyu-s2d and the like.",
    )
    add_frames(parser)
    parser.add_argument("--samples", type=_count, nargs="+", help=f"default: {_join(SAMPLES)}")
    parser.add_argument(
        "--holes",
        type=int,
        metavar="N",
        help="instead: a sheet of the N frames with the largest holes of their own, filled, and scores of holes that "
        "are hidden besides",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default: in the run's folder")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of samples; overrides come before --samples")
    return int(text)


def _join(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
