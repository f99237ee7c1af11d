"""`depthray export`: a checkpoint for other runtimes, written only if its predictions stay within a bound."""

from __future__ import annotations

import argparse
import math
import textwrap
from pathlib import Path

from depthray.cli.flags import spread_flags, trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.config import own_code
from depthray.errors import UsageError
from depthray.exporting import targets
from depthray.runs import locate


def main(argv: list[str]) -> int:
    """Export a checkpoint as the command line asks."""
    arguments = build_parser().parse_args(argv)
    _check(arguments)
    # Only now: --help need not wait for torch.
    from depthray.exporting import parity_report, write

    request = write.ExportRequest(
        target=arguments.to,
        out=arguments.out,
        data=arguments.calibrate,
        form=arguments.source,
        precision=arguments.precision,
        bound=arguments.bound,
        largest_side=arguments.max_side,
        calibration=arguments.calibration_frames,
        gate=arguments.gate_frames,
        trust=arguments.trust,
        spread=spread_flags.given(arguments.confidence, arguments.ensemble),
    )
    write.refuse_existing(request.out)  # before a checkpoint is downloaded
    own_code.allow([arguments.source or ""])
    parity = write.export(locate.resolve(arguments.checkpoint), request, say=lambda text: print(text, flush=True))
    print_markdown(parity_report.markdown(parity, title=f"Parity of {arguments.to}"))
    print(f"written: {request.out}, with README.md about it")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray export`."""
    parser = CommandParser(
        prog="depthray export",
        description="A checkpoint for other runtimes. It is compared with the checkpoint, and written only if maps\n"
        "and scores stay within a bound; else the report alone is, and the exit code is 3.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run: its best one")
    parser.add_argument("--to", required=True, choices=targets.names(), metavar="TARGET", help="one of the list below")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to write; must not exist")
    parser.add_argument(
        "--calibrate", metavar="DATA", help="frames to calibrate and compare with; default: rendered rooms"
    )
    parser.add_argument("--source", help="form of the frames: folder, shards, ...; default: as DATA looks")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="openvino: what it computes in; default: fp32")
    parser.add_argument(
        "--bound",
        type=float,
        metavar="X",
        help="what is allowed: of fp32 the largest difference of a map as a share of its largest value (1e-4), else "
        "how much worse AbsRel may be, as a share (bf16 0.005, int8 0.015)",
    )
    parser.add_argument(
        "--max-side", type=int, default=2048, metavar="N", help="largest side of a frame in pixels (default: 2048)"
    )
    parser.add_argument(
        "--calibration-frames", type=int, default=96, metavar="N", help="of scenes of their own (default: 96)"
    )
    parser.add_argument("--gate-frames", type=int, default=32, metavar="N", help="frames to compare on (default: 32)")
    spread_flags.add_flags(parser)
    trust.add_flag(parser)
    return parser


def _epilog() -> str:
    lines = [
        textwrap.fill(targets.about(name), 110, initial_indent=f"  {name:15}", subsequent_indent=" " * 17)
        for name in targets.names()
    ]
    return "\n".join(["Targets:", *lines])


def _check(arguments: argparse.Namespace) -> None:
    """Raise a UsageError for a number that cannot be meant."""
    if arguments.bound is not None and not (math.isfinite(arguments.bound) and arguments.bound >= 0):
        raise UsageError(f"--bound {arguments.bound}: give a share that is not below 0")
    if not 32 <= arguments.max_side <= 8192:
        raise UsageError(f"--max-side {arguments.max_side}: give 32 to 8192 pixels")
    for name in ("calibration_frames", "gate_frames"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: give a number above 0")
    if arguments.source and not arguments.calibrate:
        raise UsageError(f"--source {arguments.source} is the form of --calibrate DATA; give that too")
