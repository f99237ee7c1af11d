"""`depthray completion`: the error of a completion checkpoint against the number of sparse samples it is given."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from depthray.cli.evaluate import add_frames, recipe_of
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.runs import layout, locate

SAMPLES = (0, 5, 50, 200, 500, 5000)


def main(argv: list[str]) -> int:
    """Score a checkpoint at each number of samples as the command line asks."""
    arguments = build_parser().parse_intermixed_args(argv)
    # Only now: --help need not wait for torch.
    from depthray import distributed
    from depthray.evaluation.completion import curve, curve_report

    path = locate.resolve(arguments.checkpoint)
    recipe = recipe_of(path, arguments)
    curve.check(recipe, where=str(arguments.checkpoint))
    device = distributed.start()
    try:
        scored = curve.completion_curve(
            path, recipe, arguments.samples, side=arguments.split, device=device, trust=arguments.trust
        )
        if distributed.is_main():
            out = arguments.out or layout.evaluation(path, f"{arguments.split}-completion")
            curve_report.write(scored, out)
            print_markdown(curve_report.markdown(scored))
            print(f"written: {out}/completion.md, .csv, .json and .png, and regions.png")
    finally:
        distributed.stop()
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray completion`."""
    parser = CommandParser(
        prog="depthray completion",
        description="Error of a checkpoint that takes sparse depth, against the number of samples a frame.",
        epilog="Overrides: data.sparse.pattern=grid, data.sparse.noise=0.02, eval.protocol=nyu-s2d and the like.",
    )
    add_frames(parser)
    parser.add_argument("--samples", type=_count, nargs="+", default=SAMPLES, help=f"default: {_join(SAMPLES)}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default: in the run's folder")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of samples; overrides come before --samples")
    return int(text)


def _join(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
