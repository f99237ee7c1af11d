"""What `depthray data composite` is told, and the depth that a teacher predicts of its composites."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.datasets.conversion import counted_bar
from depthray.errors import UsageError, count_of

if TYPE_CHECKING:
    from depthray.data.compositing.composite_folder import Label
    from depthray.data.compositing.composites import CompositePlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `depthray data composite`."""
    parser.add_argument("foregrounds", type=Path, help="folder of objects: PNG or WebP with alpha, or with --masks")
    parser.add_argument("backgrounds", type=Path, help="folder of pictures to put them in front of")
    parser.add_argument("out", type=Path, help="folder to write; one that was interrupted goes on")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="masks of the foregrounds, by their names")
    parser.add_argument("--placements", type=int, default=2, metavar="N", help="of each pair (default: 2)")
    parser.add_argument("--per-background", type=int, metavar="N", help="objects drawn for each (default: all)")
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("HEIGHT", "WIDTH"))
    scale = "height of objects as a share of the picture's (default: 0.3 0.7; MODEST: 0.48 0.48)"
    parser.add_argument("--scale", type=float, nargs=2, default=(0.3, 0.7), metavar=("LEAST", "MOST"), help=scale)
    parser.add_argument("--flip", type=float, default=0.5, metavar="SHARE", help="of objects mirrored (default: 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quality", type=int, default=95, help="of JPEG, 1 to 100 (default: 95)")
    parser.add_argument("--teacher", type=Path, metavar="RUN", help="checkpoint or run that predicts their depth")


def write_composites(arguments: argparse.Namespace) -> Sequence[str]:
    """Write the composites -> lines to print."""
    from depthray.data.compositing import composite_folder
    from depthray.data.compositing.composites import Pictures

    plan = _plan(arguments)
    pictures = Pictures.of(plan)  # before the network, which takes longer to load
    label = _labeller(plan) if plan.teacher else None
    with counted_bar("compositing", pictures.number_of_composites(plan)) as advance:
        count = composite_folder.write(plan, pictures, label, advance=advance)
    if label:
        return [f"{count_of(count, 'composite')} at {plan.out}", f"next: depthray data check {plan.out}"]
    return [
        f"{count_of(count, 'composite')} without depth at {plan.out}",
        f"next: depthray train masknet --data {plan.out}",
    ]


def _plan(arguments: argparse.Namespace) -> CompositePlan:
    from depthray.data.compositing.composites import CompositePlan
    from depthray.runs import locate

    least, most = arguments.scale
    limits = {
        "placements": (arguments.placements, 1, 1000),
        "per-background": (arguments.per_background or 1, 1, None),
        "size": (min(arguments.size), 8, None),
        "scale": (least, 0.01, 1),
        "flip": (arguments.flip, 0, 1),
        "seed": (arguments.seed, 0, None),
        "quality": (arguments.quality, 1, 100),
    }
    for flag, (number, lowest, highest) in limits.items():
        if not number >= lowest or (highest is not None and number > highest):
            most_text = "" if highest is None else f" and at most {highest}"
            raise UsageError(f"--{flag} {number}: must be at least {lowest}{most_text}")
    if not least <= most <= 1:
        raise UsageError(f"--scale {least} {most}: the second must be at least the first, and at most 1")
    given = {key: getattr(arguments, key) for key in CompositePlan._fields}
    teacher = "" if arguments.teacher is None else str(locate.resolve(arguments.teacher))
    return CompositePlan(**given | {"size": tuple(arguments.size), "scale": (least, most), "teacher": teacher})


def _labeller(plan: CompositePlan) -> Label:
    """What predicts the depth of composites. Raises UsageError for a network of no metres."""
    import numpy as np

    from depthray.predict import load

    predictor = load(plan.teacher)
    if "depth" not in predictor.recipe.data.targets:
        raise UsageError(f"--teacher {plan.teacher}: predicts no depth; give a network that does, or leave it out")
    predictor.check_metres("--teacher")
    return lambda images: [np.asarray(depth, np.float32) for depth in predictor.predict(images)]
