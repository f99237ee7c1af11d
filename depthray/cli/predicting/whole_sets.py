"""`depthray predict RUN --data SET`: its flags, its request, and how its progress and its result are printed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from depthray.cli.datasets import conversion
from depthray.cli.flags import further_inputs, job_flags
from depthray.errors import DataError, UsageError, count_of

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    from depthray.data.source import Source
    from depthray.predicted_sets.set_parts import SetSummary
    from depthray.predicted_sets.set_plan import SetPlan, SetRequest

# Flags of the command that are for images alone, and those that are for data sets alone.
OF_IMAGES = (
    *("url", "model", "key", "format", "range", "intrinsics", "distortion", "camera_model", "recursive", "frames"),
    *("min_confidence", "keep_invalid"),
    *further_inputs.KINDS,
)
OF_SETS = ("source", "to", "rate", "as_labels", "workers", "address", "frames_per_part", "batch")
SECONDS = 30.0  # between two lines of progress, where there is no terminal
SHOWN = 5  # failed frames that are printed; the table has all


def add_flags(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """The flags of `depthray predict` that are about a whole data set. `required`: --data has to be given."""
    add = parser.add_argument_group("every frame of a data set, instead of images").add_argument
    add("--data", metavar="SET", required=required, help="a data set of any form; shards also at s3://BUCKET/PATH")
    add("--source", help="form of the data set: folder, shards, ./frames.py, ... (default: as SET looks)")
    add(
        "--to",
        metavar="FORM",
        help="shards (default); png: 16-bit PNG in millimetres with colour and index.csv; rosbag2: bags of ROS 2 with "
        "/image, /depth/image (32FC1 metres) and their camera_info, at the times at which the frames were recorded",
    )
    add(
        "--rate",
        type=float,
        metavar="HZ",
        help="with --to rosbag2, needed where frames have no times of their own: the n-th has the time n / HZ seconds",
    )
    add("--as-labels", action="store_true", help="shards of all that the frames have, with the prediction beside it")
    add("--workers", type=int, metavar="N", help="Ray workers; 1 (the default) does not need Ray")
    add("--address", help="with --workers: a running Ray cluster that sees SET and --out (default: a local one)")
    add("--frames-per-part", type=int, metavar="N", help="frames that are finished at a time (default: 256)")
    add("--batch", type=int, metavar="N", help="frames in one forward pass, at most (default: 8)")
    job_flags.add_flags(parser)


def check_flags(arguments: argparse.Namespace) -> None:
    """Raise UsageError for flags of images with --data, and for flags of data sets without."""
    wrong, text = (OF_IMAGES, "cannot be combined with") if arguments.data else (OF_SETS, "needs")
    for name in wrong:
        if getattr(arguments, name):
            raise UsageError(f"--{name.replace('_', '-')} {text} --data")
    if arguments.data:
        _check_set(arguments)


def _check_set(arguments: argparse.Namespace) -> None:
    if not arguments.checkpoint:
        raise UsageError("no checkpoint is given; name a checkpoint or a run before --data")
    arguments.overrides = [str(each) for each in arguments.images]
    for each in arguments.overrides:
        if "=" not in each:
            raise UsageError(f"{each}: give either images or --data, the frames of a data set")
    if arguments.workers is not None and arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers}: at least 1 is needed")
    if arguments.address and (arguments.workers or 1) == 1 and not job_flags.is_inside_job():
        raise UsageError(f"--address {arguments.address} needs --workers above 1")


def request_of(arguments: argparse.Namespace, *, scales: tuple[float, ...] = ()) -> SetRequest:
    """What the command line asks for; `scales` as its text was read."""
    from depthray.predicted_sets.set_plan import SetRequest

    given = {
        "source": arguments.source,
        "to": arguments.to,
        "rate": arguments.rate,
        "frames_per_part": arguments.frames_per_part,
        "device": arguments.device,
        "precision": arguments.precision,
        "tiles": arguments.tiles,
        "confidence": arguments.confidence,
        "batch": arguments.batch,
    }
    return SetRequest(
        model=str(arguments.checkpoint),
        data=arguments.data,
        out=str(arguments.out),
        overrides=tuple(arguments.overrides),
        as_labels=arguments.as_labels,
        flip=arguments.flip,
        scales=scales,
        ensemble=tuple(map(str, arguments.ensemble)),
        trust=arguments.trust,
        **{name: value for name, value in given.items() if value is not None},
    )


def run(request: SetRequest) -> int:
    """Predict a data set in this process, print the result, and return the exit code."""
    from depthray.predicted_sets import set_parts, set_plan

    source, plan = set_plan.prepare(request)
    with progress(plan, source) as advance:
        set_parts.predict_all(plan, source, advance=advance)
    return print_summary(plan, set_parts.finish(plan))


@contextmanager
def progress(plan: SetPlan, source: Source) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else a line from time to time -> what takes the number of frames that are done."""
    if sys.stderr.isatty():
        with conversion.progress_bar("predicting", source) as advance:
            yield advance
        return
    done, began = 0, time.monotonic()
    last = began

    def count(frames: int) -> None:
        nonlocal done, last
        done, now = done + frames, time.monotonic()
        if now - last >= SECONDS:
            last = now
            print(f"{done} of {plan.total} frames, {done / (now - began):.1f} a second", file=sys.stderr, flush=True)

    yield count


def print_summary(plan: SetPlan, summary: SetSummary) -> int:
    """Print what was written, and the frames that failed -> the exit code."""
    files = f" in {count_of(summary.shards, 'shard')}" if summary.shards else ""
    print(f"{summary.frames} of {count_of(plan.total, 'frame')} predicted{files}, at {plan.request.out}")
    reasons = list(summary.failed.values())
    for reason in reasons[:SHOWN]:
        print(f"depthray: {reason}", file=sys.stderr)
    if not reasons:
        print(f"next: depthray data check {plan.request.out}")
        return 0
    left = f"{len(reasons) - SHOWN} others; " if len(reasons) > SHOWN else ""
    print(f"depthray: {left}failed frames are listed in {plan.request.out}/failed.csv", file=sys.stderr)
    return DataError.exit_code
