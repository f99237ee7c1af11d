"""`depthray.calibrate`, `robust` and `card`: the commands of these names as functions, like those of `depthray.api`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.scoring import calibrate as calibrate_command
from depthray.cli.scoring import card as card_command
from depthray.cli.scoring import robust as robust_command
from depthray.python_words import flags_of, speaks_python
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
    flags = flags_of(
        {
            **{"data": data, "source": source, "split": split, "points": points, "intrinsics": intrinsics},
            **{"sparse": sparse, "confidence": confidence, "flip": flip, "ensemble": [*ensemble], "remove": remove},
            **{"out": out, "trust": trust},
        }
    )
    parser = calibrate_command.build_parser()
    arguments = parser.parse_intermixed_args([os.fspath(checkpoint), *overrides, *flags])
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
    flags = {"data": data, "source": source, "split": split, "frames": frames, "only": [*only], "clip": clip}
    arguments = robust_command.build_parser().parse_intermixed_args([*words, *flags_of(flags | {"trust": trust})])
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
