"""What a calibration from few measured points gains, against that from all pixels of the same frames.

    python benchmarks/few_points.py RUN --fit EARLY --score LATER [--points 20] [--draws 300] [override ...]

A point is a random pixel of a frame, of each frame in turn, as if it were measured by tape. Each draw is decided as
`depthray calibrate --points` does. The second row is of the same draws with depths times the factor at which all
pixels ask for no correction: what is taken there is luck.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from depthray.cli import evaluate as evaluate_command
from depthray.evaluation.calibrating import pairs
from depthray.evaluation.calibrating.cross_validation import decide
from depthray.evaluation.calibrating.log_line import AS_IT_IS, FramePairs, LogLine, fit_scale
from depthray.evaluation.markdown_table import markdown_table
from depthray.runs import locate
from depthray.runtimes.open import open_model


def main(argv: list[str] | None = None) -> None:
    """Draw points, calibrate by them, and print what that gains on other frames."""
    args = _parse(argv)
    fitted, scored = _pairs(args)
    whole, right = fit_scale(fitted), fit_scale(scored)
    before, after = (_abs_rel(line, scored) for line in (AS_IT_IS, whole))
    print(f"{args.run}: AbsRel {before:.4f} on {args.score}, {after:.4f} with the scale of all pixels of {args.fit}\n")
    head = ["truth", "corrected", "gain, mean", "median", "within 20 % of the whole", "worse by 1 % or more"]
    rows = []
    for name, fit_to, score_on, possible in (
        ("as measured", fitted, scored, before - after),
        ("the scale is right", _scaled(fitted, whole), _scaled(scored, right), 0.0),
    ):
        as_it_is = _abs_rel(AS_IT_IS, score_on)
        lines = [decide(_draw(fit_to, args.points, seed)).line for seed in range(args.draws)]
        gains = np.array([as_it_is - _abs_rel(line, score_on) for line in lines])
        of_whole = [f"{gain / possible:.0%}" if possible > 0 else "" for gain in (gains.mean(), np.median(gains))]
        near = f"{np.mean(gains >= 0.8 * possible):.0%}" if possible > 0 else ""
        corrected = np.mean([line != AS_IT_IS for line in lines])
        rows.append([name, f"{corrected:.0%}", *of_whole, near, f"{np.mean(gains <= -0.01 * as_it_is):.0%}"])
    print(markdown_table(head, [[cell.replace("%", " %") for cell in row] for row in rows]))


def _pairs(args: argparse.Namespace) -> list[list[FramePairs]]:
    """Of the frames to fit to, and of those to score on."""
    path = locate.resolve(args.run)
    opened = open_model(path, device=torch.device("cpu"))
    found = []
    for data in (args.fit, args.score):
        request = argparse.Namespace(trust=False, overrides=args.overrides, data=data, source=None)
        found.append(pairs.of_frames(opened, evaluate_command.recipe_of(path, request), side="all")[0])
    return found


def _draw(frames: Sequence[FramePairs], count: int, seed: int) -> list[FramePairs]:
    rng = np.random.default_rng(seed)
    drawn = []
    for number in range(count):
        frame = frames[number % len(frames)]
        place = rng.integers(len(frame.measured), size=1)
        drawn.append(FramePairs(frame.id, frame.id, frame.predicted[place], frame.measured[place]))
    return drawn


def _scaled(frames: Sequence[FramePairs], line: LogLine) -> list[FramePairs]:
    return [frame._replace(measured=frame.measured - line.shift) for frame in frames]


def _abs_rel(line: LogLine, frames: Sequence[FramePairs]) -> float:
    return float(np.mean([line.abs_rel(frame) for frame in frames]))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a network of metric depth")
    parser.add_argument("--fit", type=Path, required=True, help="frames of which points are measured")
    parser.add_argument("--score", type=Path, required=True, help="other frames of the same camera and place")
    parser.add_argument("--points", type=int, default=20, help="how many are measured (20)")
    parser.add_argument("--draws", type=int, default=300, help="how often they are drawn (300)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data.* and eval.* of the recipe")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
