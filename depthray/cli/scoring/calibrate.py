"""`depthray calibrate`: correct a network's metres by frames or points of one's own, where that holds on others too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.checkpoints import load, manifest, select
from depthray.checkpoints.calibration import Calibration
from depthray.cli.evaluate import add_frames, recipe_of
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.errors import DataError, UsageError
from depthray.evaluation.markdown_table import markdown_table
from depthray.runs import locate
from depthray.runtimes import export_folder

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.evaluation.calibrating.cross_validation import Decision
    from depthray.evaluation.calibrating.log_line import FramePairs

FOLDER = "calibrated"  # beside `checkpoints` of a run, by default


def main(argv: list[str]) -> int:
    """Calibrate a checkpoint as the command line asks, or remove its calibration."""
    arguments = build_parser().parse_intermixed_args(argv)
    path = locate.resolve(arguments.checkpoint)
    if export_folder.is_export(path):
        raise UsageError(f"{path}: an export computes what it was made of; calibrate the checkpoint and export that")
    out = arguments.out or _default_folder(path)
    if out.exists():
        raise UsageError(f"--out {out}: exists; choose another folder or remove it")
    before = manifest.read(path).calibration
    if arguments.remove:
        if before is None:
            raise UsageError(f"{path}: is not calibrated")
        print(f"written: {_write(out, path, None, trust=arguments.trust)}, without calibration")
        return 0
    if before is not None:
        raise UsageError(f"{path}: is calibrated already ({before}); calibrate the checkpoint it was made of")
    pairs, about = _measure(path, arguments)
    from depthray.evaluation.calibrating.cross_validation import decide

    decision = decide(pairs)
    print_markdown(markdown(decision))
    fitted = _calibration(decision, about, frames=len(pairs))
    print(f"written: {_write(out, path, fitted, trust=arguments.trust)}, its depth {fitted}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray calibrate`."""
    parser = CommandParser(
        prog="depthray calibrate",
        description="Fit a scale of depth, or a scale and a slope of ln depth, to frames or points of your own. It is "
        "kept only where it lowers AbsRel by 3 percent or more on frames that were held out of the fit: whole scenes, "
        "or parts of one in time. The result is a checkpoint of its own, beside the first.",
        epilog="Overrides: data.* and eval.* as for depthray evaluate.",
    )
    add_frames(parser)
    parser.set_defaults(split="all")
    parser.add_argument("--points", type=Path, metavar="FILE.csv", help="measured points: columns image, x, y, metres")
    parser.add_argument("--remove", action="store_true", help="write the checkpoint without its calibration")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default: RUN/calibrated")
    return parser


def markdown(decision: Decision) -> str:
    """What held-out frames say, for people."""
    before = decision.rows[0].mean
    lines = [
        [row.name, f"{row.mean:.4f}", f"{row.mean / before - 1:+.1%}".replace("%", " %"), _folds(row.folds)]
        for row in decision.rows
    ]
    table = markdown_table(["correction", "AbsRel held out", "change", "of each part"], lines)
    return f"Held out: {decision.how}.\n\n{table}\n"


def _measure(path: Path, arguments: argparse.Namespace) -> tuple[list[FramePairs], tuple[str, str]]:
    """Pairs, and the name and the fingerprint of what was measured."""
    # Only now: --help need not wait for torch.
    from depthray import distributed
    from depthray.evaluation import protocols
    from depthray.evaluation.calibrating import pairs
    from depthray.predict import load as load_predictor
    from depthray.runtimes.open import open_model

    device = distributed.start()
    try:
        if arguments.points is not None:
            points = pairs.read_points(arguments.points)
            predictor = load_predictor(path, device=str(device), trust=arguments.trust)
            predictor.check_metres("calibration")
            depths = (predictor.predict(image).metres for image in points)
            return pairs.of_points(points, depths), (str(arguments.points), "")
        recipe = recipe_of(path, arguments)
        if recipe.depth_kind != "metric":
            raise UsageError(f"{path}: its depth is not in metres, so no scale would be right for the next frame")
        if fitted := [each.name for each in protocols.of(recipe).sets if each.protocol.align != "none"]:
            raise UsageError(f"{path}: its data set '{fitted[0]}' has no metric truth; give --data PATH")
        opened = open_model(path, device=device, trust=arguments.trust)
        found, fingerprint = pairs.of_frames(opened, recipe, side=arguments.split)
        return found, (recipe.data.place, fingerprint)
    finally:
        distributed.stop()


def _calibration(decision: Decision, about: tuple[str, str], *, frames: int) -> Calibration:
    """What is stored. Raises DataError where nothing is gained."""
    plain, chosen = decision.rows[0], decision.chosen
    if chosen is plain:
        raise DataError(
            f"not calibrated: on held-out frames AbsRel is {plain.mean:.4f} as it is, {decision.rows[1].mean:.4f} with "
            f"a scale, {decision.rows[2].mean:.4f} with a slope too. A scale must gain 3 % in nearly all parts, a "
            "slope as much again, on several scenes"
        )
    data, fingerprint = about
    shift, slope = decision.line
    return Calibration(shift, slope, data, fingerprint, frames, before=plain.mean, after=chosen.mean)


def _write(out: Path, path: Path, calibration: Calibration | None, *, trust: bool) -> Path:
    """A copy of a checkpoint with another calibration, or with none."""
    from depthray.checkpoints import save

    return save.write(out, replace(load.load(path, state=True, trust=trust), calibration=calibration))


def _default_folder(path: Path) -> Path:
    in_run = path.parent.name == select.FOLDER
    return path.parents[1] / FOLDER if in_run else Path(FOLDER)


def _folds(means: Sequence[float]) -> str:
    return " ".join(f"{mean:.3f}" for mean in means)
