"""`depthray.calibrate`, `robust` and `card`: the commands of these names as functions, like those of `depthray.api`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.scoring import calibrate as calibrate_command
from depthray.cli.scoring import card as card_command
from depthray.cli.scoring import robust as robust_command
from depthray.python_words import speaks_python
from depthray.runs import layout, locate
from depthray.storage.remote import is_remote
from depthray.waiting import Heartbeat

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.evaluation.robustness.robustness import RobustnessReport

Place = str | os.PathLike[str]  # a path, or the address of a store


@speaks_python
def calibrate(
    checkpoint: Place,
    /,
    *overrides: str,
    data: Place | None = None,
    source: str | None = None,
    split: str | None = None,
    points: Place | None = None,
    intrinsics: str | None = None,
    sparse: Place | None = None,
    confidence: bool = False,
    flip: bool = False,
    ensemble: Sequence[Place] = (),
    remove: bool = False,
    out: Place | None = None,
    trust: bool = False,
) -> Path:
    """Correct the metres of a checkpoint, or with `confidence=True` its sigma: `calibrate(run, data="frames")`.

    `data` are frames with measured depth, or `points` is a CSV file of measured pixels, for whose photographs
    `intrinsics` ("fx,fy,cx,cy") and `sparse` (a file or a folder) are what the network needs besides. `flip=True` and
    `ensemble` say whose spread is fitted in place of what the network itself predicts; `remove=True` writes the
    checkpoint without its calibration. Returns the new checkpoint, in `out` (default: RUN/calibrated).

    Raises DataError where held-out frames do not gain, and UsageError where `out` exists.
    """
    command = calibrate_command.build_parser()
    arguments = command.parse_intermixed_args([os.fspath(checkpoint), *overrides])
    given = {"data": data, "source": source, "split": split, "intrinsics": intrinsics}
    paths = {"points": points, "sparse": sparse, "out": out}
    _set(arguments, {name: None if value is None else os.fspath(value) for name, value in given.items()})
    _set(arguments, {name: None if value is None else Path(value) for name, value in paths.items()})
    _set(arguments, {"confidence": confidence, "flip": flip, "remove": remove, "trust": trust})
    _set(arguments, {"ensemble": [Path(each) for each in ensemble]})
    with Heartbeat(f"{os.fspath(checkpoint)} to be calibrated"):
        return calibrate_command.calibrate(arguments, show=lambda text: None)[0]


@speaks_python
def robust(
    checkpoint: Place,
    *others: Place,
    overrides: Sequence[str] = (),
    data: Place | None = None,
    source: str | None = None,
    split: str = "val",
    frames: int = robust_command.FRAMES,
    only: Sequence[str] = (),
    clip: Place | None = None,
    out: Place | None = None,
    trust: bool = False,
) -> RobustnessReport:
    """Score networks on frames that get worse in several ways: `robust("runs/a", "runs/b", only=["noise"]).networks`.

    At most `frames` of the frames are scored. `only` names corruptions, or crop; `clip` is a video whose flicker is
    measured. With `out` the tables and pictures are written there.
    """
    from depthray import distributed
    from depthray.evaluation.robustness import robustness_report

    words = [*(os.fspath(each) for each in (checkpoint, *others)), *overrides]
    arguments = robust_command.build_parser().parse_intermixed_args(words)
    _set(arguments, {"data": None if data is None else os.fspath(data), "source": source, "split": split})
    _set(arguments, {"frames": frames, "only": list(only) or None, "trust": trust})
    _set(arguments, {"clip": None if clip is None else Path(clip)})
    try:
        report, _ = robust_command.measure(arguments)
    finally:
        distributed.stop()
    if out is not None:
        robustness_report.write(report, Path(out))
    return report


@speaks_python
def card(checkpoint: Place, /) -> str:
    """The model card of a checkpoint, an export or a run's best checkpoint, with its reports, as Markdown."""
    path = locate.resolve(Path(checkpoint))
    return card_command.card_text(path, reports=None if is_remote(os.fspath(checkpoint)) else layout.reports(path))


def _set(arguments: argparse.Namespace, values: dict[str, object]) -> None:
    """Values in place of what the command line would give; they need not be text first."""
    for name, value in values.items():
        setattr(arguments, name, value)
