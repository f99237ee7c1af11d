"""`depthray calibrate`: correct metres or confidence by one's own frames or points, where that holds on others too."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.checkpoints import load, manifest, select
from depthray.checkpoints.calibration import Calibration, Temperature
from depthray.cli.evaluate import add_frames, recipe_of
from depthray.cli.flags import further_inputs, spread_flags
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.errors import DataError, UsageError
from depthray.evaluation.markdown_table import markdown_table
from depthray.runs import layout, locate
from depthray.runtimes import export_folder

if TYPE_CHECKING:  # torch takes seconds to import
    import numpy as np
    from numpy.typing import NDArray

    from depthray.evaluation.calibrating.cross_validation import Decision
    from depthray.evaluation.calibrating.log_line import FramePairs
    from depthray.evaluation.calibrating.temperature import TemperatureDecision

FOLDER = "calibrated"  # beside `checkpoints` of a run, by default


def main(argv: list[str]) -> int:
    """Calibrate a checkpoint as the command line asks, or remove its calibration."""
    written, about = calibrate(build_parser().parse_intermixed_args(argv))
    print(f"written: {written}, {about}")
    return 0


def calibrate(arguments: argparse.Namespace, *, show: Callable[[str], None] = print_markdown) -> tuple[Path, str]:
    """The checkpoint that was written, and what of it is new; `show` gets the table of what held-out frames say."""
    path = locate.resolve(arguments.checkpoint)
    if export_folder.is_export(path):
        raise UsageError(f"{path}: an export computes what it was made of; calibrate the checkpoint and export that")
    out = arguments.out or _default_folder(path)
    if out.exists():
        raise UsageError(f"--out {out}: exists; choose another folder or remove it")
    if not arguments.confidence and (arguments.flip or arguments.ensemble):
        raise UsageError("--flip and --ensemble say whose confidence is fitted: give --confidence too")
    if further_inputs.given(arguments) and arguments.points is None:
        raise UsageError(f"--{next(iter(further_inputs.given(arguments)))} is of photographs: give --points too")
    record = manifest.read(path)
    if arguments.remove:
        if record.calibration is None and record.temperature is None:
            raise UsageError(f"{path}: is not calibrated")
        return _write(out, path, arguments.trust, calibration=None, temperature=None), "without calibration"
    # Last of all: of other metres the confidence would be another one.
    if before := record.temperature or (None if arguments.confidence else record.calibration):
        raise UsageError(f"{path}: is calibrated already ({before}); calibrate the checkpoint it was made of")
    return (_calibrate_confidence if arguments.confidence else _calibrate_metres)(path, out, arguments, show)


def _calibrate_metres(
    path: Path, out: Path, arguments: argparse.Namespace, show: Callable[[str], None]
) -> tuple[Path, str]:
    pairs, about = _measure(path, arguments)
    from depthray.evaluation.calibrating.cross_validation import decide

    decision = decide(pairs)
    show(markdown(decision))
    fitted = _calibration(decision, about, frames=len(pairs))
    return _write(out, path, arguments.trust, calibration=fitted), f"its depth {fitted}"


def _calibrate_confidence(
    path: Path, out: Path, arguments: argparse.Namespace, show: Callable[[str], None]
) -> tuple[Path, str]:
    if arguments.points is not None:
        raise UsageError("--confidence needs frames with measured depth: give --data in place of --points")
    decision, about, count, of = _measure_confidence(path, arguments)
    rows = (("as it is", decision.before), ("with a temperature", decision.after))
    shares = [[name, *(f"{100 * share:.1f} %" for share in row)] for name, row in rows]
    table = markdown_table(["held-out pixels", "in the 68 % interval", "in the 95 % interval"], shares)
    show(f"Held out: {decision.how}.\n\n{table}\n")
    if not decision.gains:
        raise DataError(
            f"not calibrated: of held-out pixels {_percent(decision.before)} are in the intervals of 68 and 95 % as "
            f"they are, {_percent(decision.after)} with a temperature of {decision.factor:.2f}, which is no clear gain"
        )
    fitted = Temperature(decision.factor, *about, count, decision.before, decision.after, of)
    return _write(out, path, arguments.trust, temperature=fitted), f"its deviations {fitted}"


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray calibrate`."""
    parser = CommandParser(
        prog="depthray calibrate",
        description="Fit a scale of depth, or a scale and a slope of ln depth, to frames or points of your own. It is "
        "kept only where it lowers AbsRel by 3 percent or more on frames that were held out of the fit: whole scenes, "
        "or parts of one in time. The result is a checkpoint of its own, beside the first. With --confidence it is a "
        "factor of the deviations that the network predicts (model.uncertainty), fitted so that intervals of 68 and "
        "95 percent hold so many pixels.",
        epilog="Overrides: data.* and eval.* as for depthray evaluate.",
    )
    add_frames(parser)
    parser.set_defaults(split=None)
    parser.add_argument(
        "--confidence", action="store_true", help="fit the confidence (frames: those held out, or all of --data)"
    )
    parser.add_argument("--flip", action="store_true", help="--confidence: that of `predict --confidence flip`")
    spread_flags.add_ensemble(parser)
    parser.add_argument("--points", type=Path, metavar="FILE.csv", help="measured points: columns image, x, y, metres")
    parser.add_argument(
        "--intrinsics", metavar="fx,fy,cx,cy", help="with --points: the camera, for a network of data.canonical_focal"
    )
    for key in further_inputs.KINDS:
        parser.add_argument(f"--{key}", type=Path, metavar="FILE|FOLDER", help="with --points: as `predict` takes it")
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
    from depthray.imaging import photos
    from depthray.imaging.camera import read_camera
    from depthray.predict import load as load_predictor
    from depthray.runtimes.open import open_model

    device = distributed.start()
    try:
        if arguments.points is not None:
            points = pairs.read_points(arguments.points)
            predictor = load_predictor(path, device=str(device), trust=arguments.trust)
            predictor.check_metres("calibration")
            camera = read_camera(arguments.intrinsics) if arguments.intrinsics else None
            others = further_inputs.given(arguments)
            # A network that can do without would be another one without.
            further_inputs.check(others, predictor.recipe.data.inputs)

            def predicted(image: Path) -> tuple[NDArray[np.float32], float]:
                maps = {
                    key: further_inputs.read(key, further_inputs.find(place, Path(image.stem)), limits=photos.LIMITS)
                    for key, place in others.items()
                }
                depth = predictor.predict(image, camera=camera, **maps)
                return depth.metres, predictor.canonical_factor((depth.shape[0], depth.shape[1]), camera)

            depths = map(predicted, points)
            return pairs.of_points(points, depths), (str(arguments.points), "")
        recipe = recipe_of(path, arguments)
        if recipe.depth_kind != "metric":
            raise UsageError(f"{path}: its depth is not in metres, so no scale would be right for the next frame")
        if fitted := [each.name for each in protocols.of(recipe).sets if each.protocol.align != "none"]:
            raise UsageError(f"{path}: its data set '{fitted[0]}' has no metric truth; give --data PATH")
        opened = open_model(path, device=device, trust=arguments.trust)
        found, fingerprint = pairs.of_frames(opened, recipe, side=arguments.split or "all")
        return found, (recipe.data.place, fingerprint)
    finally:
        distributed.stop()


def _measure_confidence(
    path: Path, arguments: argparse.Namespace
) -> tuple[TemperatureDecision, tuple[str, str], int, str]:
    """What held-out frames say; name and fingerprint of what was measured; the number of frames; whose deviation."""
    from depthray import distributed, models
    from depthray.evaluation.calibrating import temperature
    from depthray.runtimes.open import open_model

    device = distributed.start()
    try:
        recipe = recipe_of(path, arguments)
        spread = spread_flags.given("flip" if arguments.flip else None, arguments.ensemble)
        if spread is None and recipe.model.uncertainty == "none":
            raise UsageError(
                f"{path}: predicts no confidence; train it with model.uncertainty=laplace, or give --flip or --ensemble"
            )
        opened = open_model(path, device=device, trust=arguments.trust)
        opened = spread.apply(opened, trust=arguments.trust) if spread else opened
        # A network is too sure of frames that it was trained on.
        side = arguments.split or ("all" if arguments.data else "val")
        found, fingerprint = temperature.of_frames(opened, recipe, side=side)
        decision = temperature.decide(found, models.uncertainty_of(opened.network))
        return decision, (recipe.data.place, fingerprint), len(found), opened.spread
    finally:
        distributed.stop()


def _calibration(decision: Decision, about: tuple[str, str], *, frames: int) -> Calibration:
    """What is stored. Raises DataError where nothing is gained."""
    plain, chosen = decision.rows[0], decision.chosen
    if chosen is plain:
        of_slope = "".join(f", {row.mean:.4f} with a slope too" for row in decision.rows[2:])
        raise DataError(
            f"not calibrated: on held-out frames AbsRel is {plain.mean:.4f} as it is, {decision.rows[1].mean:.4f} with "
            f"a scale{of_slope}. A scale must gain 3 %, beyond what differs from part to part by luck, a slope as much "
            "again, on several scenes"
        )
    data, fingerprint = about
    shift, slope = decision.line
    return Calibration(shift, slope, data, fingerprint, frames, before=plain.mean, after=chosen.mean)


def _write(out: Path, path: Path, trust: bool, **changes: Calibration | Temperature | None) -> Path:
    """A copy of a checkpoint with another calibration or temperature, or with none, and its model card."""
    from depthray.cards import run_card
    from depthray.checkpoints import save

    contents = replace(load.load(path, state=True, trust=trust), **changes)  # type: ignore[arg-type]
    written = save.write(out, contents)
    run_card.write(written, out / layout.MODEL_CARD, reports=None)
    return written


def _default_folder(path: Path) -> Path:
    in_run = path.parent.name == select.FOLDER
    return path.parents[1] / FOLDER if in_run else Path(FOLDER)


def _folds(means: Sequence[float]) -> str:
    return " ".join(f"{mean:.3f}" for mean in means)


def _percent(shares: Sequence[float]) -> str:
    return " and ".join(f"{100 * share:.1f} %" for share in shares)
