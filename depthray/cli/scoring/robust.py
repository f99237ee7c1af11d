"""`depthray robust`: how fast a checkpoint's scores fall as photographs get worse, and by what."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.flags import trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.cli.scoring import card
from depthray.cli.scoring.compare import open_candidates, split_words
from depthray.errors import UsageError, did_you_mean
from depthray.runs import layout
from depthray.storage.remote import is_remote
from depthray.waiting import Heartbeat

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.evaluation.robustness.robustness import RobustnessReport

FRAMES = 40
CLIP_FRAMES = 120


def main(argv: list[str]) -> int:
    """Corrupt and score as the command line asks."""
    arguments = build_parser().parse_intermixed_args(argv)
    # Only now: --help need not wait for torch.
    from depthray import distributed
    from depthray.evaluation.robustness import robustness_report

    try:
        report, path = measure(arguments)
        if distributed.is_main():
            place = split_words(arguments.words)[0][0]
            out = arguments.out or layout.evaluation(path, f"{arguments.split}-robustness", remote=is_remote(place))
            robustness_report.write(report, out)
            print_markdown(robustness_report.markdown(report))
            print(f"written: {out}/robustness.md, .json, and pictures")
            if not arguments.out and not is_remote(place):
                card.refresh(path)
    finally:
        distributed.stop()
    return 0


def measure(arguments: argparse.Namespace) -> tuple[RobustnessReport, Path]:
    """The report on the networks that a command line names, and the first one's checkpoint.

    Processes of torchrun are joined; `depthray.distributed.stop` is the caller's.
    """
    from depthray import distributed
    from depthray.evaluation.robustness import robustness
    from depthray.evaluation.robustness.corruptions import meanings

    places, overrides = split_words(arguments.words)
    if arguments.frames < 1:
        raise UsageError(f"--frames {arguments.frames}: at least 1")
    if arguments.clip_frames < 2:
        raise UsageError(f"--clip-frames {arguments.clip_frames}: at least 2")
    chosen = _corruptions(arguments.only, [*meanings(), robustness.CROP])
    clip = robustness.Clip(arguments.clip, arguments.clip_frames) if arguments.clip else None
    device = distributed.start()
    request = argparse.Namespace(**{**vars(arguments), "overrides": overrides})
    candidates, (frames,) = open_candidates(places, [request])
    with Heartbeat("corrupted frames to be scored") as waiting:
        report = robustness.measure(
            candidates,
            frames,
            chosen,
            side=arguments.split,
            most=arguments.frames,
            device=device,
            trust=arguments.trust,
            say=waiting.beat,
            clip=clip,
        )
    return report, candidates[0].path


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray robust`."""
    parser = CommandParser(
        prog="depthray robust",
        description="Score a checkpoint, or several, on frames that are darkened, blurred, compressed, turned and so "
        "on at five strengths, and say which of it harms most; compare depth of parts of a frame with that of the "
        "whole, and of consecutive frames of a clip.",
        epilog="Overrides: data.* and eval.* as for depthray evaluate.",
    )
    parser.add_argument("words", nargs="+", metavar="RUN", help="checkpoints, exports or runs, then overrides")
    parser.add_argument("--data", metavar="PATH", help="the frames; default: those the first one's recipe names")
    parser.add_argument("--source", help="form of the frames: folder, ./frames.py, ...; default: as PATH looks")
    parser.add_argument("--split", default="val", help="train, val, test or all; default: val")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"at most so many of them; default: {FRAMES}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these corruptions, or crop; default: all")
    parser.add_argument("--clip", type=Path, metavar="FILE", help="a video: how much its depth flickers")
    parser.add_argument(
        "--clip-frames", type=int, default=CLIP_FRAMES, metavar="N", help=f"its first N frames; default: {CLIP_FRAMES}"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default: in the first run's folder")
    trust.add_flag(parser)
    return parser


def _corruptions(names: Sequence[str] | None, known: list[str]) -> list[str]:
    for name in names or ():
        if name not in known:
            raise UsageError(f"--only {name}: no such corruption{did_you_mean(name, known)}")
    return list(names or known)
