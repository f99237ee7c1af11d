"""Flags that say by whose predictions confidence is measured, where a network does not predict it itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.runs import locate

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.runtimes.spread import Spread


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--confidence flip` and `--ensemble RUN ...`."""
    parser.add_argument(
        "--confidence",
        choices=["flip"],
        help="flip: sigma and confidence from the difference to the mirrored image, for networks that predict none; "
        "twice the time",
    )
    add_ensemble(parser)


def add_ensemble(parser: argparse.ArgumentParser) -> None:
    """`--ensemble RUN ...`."""
    parser.add_argument(
        "--ensemble",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="further checkpoints, of other seeds: the mean with them, and confidence from how far they differ",
    )


def given(confidence: str | None, ensemble: Sequence[Path]) -> Spread | None:
    """What the flags ask for; None: the confidence that the network itself predicts, if it does."""
    from depthray.runtimes.spread import Spread

    return Spread.of(confidence, [locate.resolve(each) for each in ensemble])
