"""Does a change of focal length change metres? One run with data.canonical_focal and one without, on the same frames.

    python benchmarks/canonical_focal.py RUN_WITH RUN_WITHOUT --data NYU [--split val] [--frames 200] [override ...]

Of each frame the middle of 0.7 of its sides is the original. The whole frame, resized to the original's pixels, is the
same scene through 0.7 of the focal length, and the middle half of the frame, enlarged to them, through 1.4 of it.
Each is predicted by itself, with its own camera. The ratio of depths is taken where all three show the same, the
middle half of the frame: its median over pixels is that of a frame. Wanted: medians within 3 % of 1 with the canonical
camera, and visibly not without. AbsRel is that of the same pixels. `--size` gives pictures another number of pixels:
with those of data.size nothing is resampled twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.cli import evaluate as evaluate_command
from depthray.config.sections import Data
from depthray.data import split
from depthray.data.augmentation.geometry import View
from depthray.data.augmentation.warp import show
from depthray.data.cameras.canonical_camera import with_camera
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.errors import DataError
from depthray.evaluation.markdown_table import markdown_table
from depthray.imaging.camera import as_camera
from depthray.predict import Predictor, load
from depthray.runs import locate

ORIGINAL = 0.7  # of a frame's sides
FACTORS = (0.7, 1.0, 1.4)  # of the original's focal length
COMMON = ORIGINAL / max(FACTORS)  # of a frame's sides, which all show
WANTED = 0.03

Metres = NDArray[np.float32]


class Compared(NamedTuple):
    """One frame through a focal length, where all of them show the same."""

    ratio: float  # median of its depth over that of the original
    error: float  # mean relative error; NaN where nothing is measured


def zoomed(sample: Sample, factor: float, size: Sequence[int] | None = None) -> Sample:
    """A frame (H,W) -> (h,w), by default 0.7 of its sides, as a camera of `factor` times its focal length takes it"""
    whole = View.of(sample)
    height, width = size or (round(ORIGINAL * side) for side in whole.size)
    return show(sample, whole.crop(min(1.0, ORIGINAL / factor), left=0.5, top=0.5).resize((height, width)))


def common(values: Metres, factor: float, *, nearest: bool = False) -> Metres:
    """(h,w) of a picture of `zoomed` -> (h,w) of what all of them show"""
    share = COMMON * factor / ORIGINAL
    height, width = values.shape
    # In pixel positions, so that pictures of any size show the same to a part of a pixel.
    across, down = (
        (np.arange(side, dtype=np.float32) + 0.5) * share + (1 - share) * side / 2 - 0.5 for side in (width, height)
    )
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    columns, rows = np.meshgrid(across, down)
    return np.asarray(cv2.remap(values, columns, rows, method, borderMode=cv2.BORDER_REPLICATE), np.float32)


def compare(predictor: Predictor, sample: Sample, size: Sequence[int] | None = None) -> list[Compared]:
    """A frame -> what its depth becomes through each of FACTORS."""
    pictures = [zoomed(sample, factor, size) for factor in FACTORS]
    depths = [
        common(np.asarray(predictor.predict(each["image"], camera=as_camera(each["intrinsics"]))), factor)
        for each, factor in zip(pictures, FACTORS, strict=True)
    ]
    original = depths[FACTORS.index(1.0)]
    limits = predictor.recipe.data.min_depth, predictor.recipe.data.max_depth
    found = []
    for picture, depth, factor in zip(pictures, depths, FACTORS, strict=True):
        truth = common(picture["depth"], factor, nearest=True)
        valid = (truth > limits[0]) & (truth < limits[1])
        error = float(np.mean(np.abs(depth - truth)[valid] / truth[valid])) if valid.any() else float("nan")
        found.append(Compared(float(np.median(depth / original)), error))
    return found


def measure(
    predictor: Predictor, source: Source, indices: Sequence[int], data: Data, size: Sequence[int] | None
) -> NDArray[np.float64]:
    """Frames -> (frames, factors, 2) ratios and errors"""
    rows = []
    for index in indices:
        sample = with_camera(source.read(index), data)
        if "intrinsics" not in sample or "depth" not in sample:
            raise DataError(f"frame '{sample['id']}' has no camera or no depth; give data.intrinsics=fx,fy,cx,cy")
        rows.append(compare(predictor, sample, size))
    return np.array(rows, np.float64)


def main(argv: list[str] | None = None) -> None:
    """Predict all frames by both runs and print a table."""
    args = _parse(argv)
    path = locate.resolve(args.run_with)
    request = argparse.Namespace(trust=False, overrides=args.overrides, data=args.data, source=args.source)
    recipe = evaluate_command.recipe_of(path, request)
    source = open_source(recipe.data)
    side = split.side(source.frames, recipe.data, args.split)
    count = min(args.frames, len(side))
    chosen = [int(side[place * len(side) // count]) for place in range(count)]
    table, verdicts = [], []
    for name, run in (("with", args.run_with), ("without", args.run_without)):
        found = measure(load(locate.resolve(run), device="cpu"), source, chosen, recipe.data, args.size)
        medians = np.median(found[:, :, 0], axis=0)
        low, high = np.percentile(found[:, :, 0], (10, 90), axis=0)
        errors = np.nanmean(found[:, :, 1], axis=0)
        for place, factor in enumerate(FACTORS):
            spread = f"{low[place]:.3f} to {high[place]:.3f}"
            table.append([name, f"x {factor:g}", f"{medians[place]:.3f}", spread, f"{errors[place]:.4f}"])
        verdicts.append(f"{name}: medians are {100 * np.abs(medians - 1).max():.1f} % from 1 at most")
    print(f"{len(chosen)} frames of {len({source.frames[index].scene for index in chosen})} scenes\n")
    print(markdown_table(["run", "focal length", "depth / original", "of 80 % of the frames", "AbsRel"], table))
    print(f"\n{'; '.join(verdicts)} (wanted: {100 * WANTED:g} % with)")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_with", type=Path, help="a checkpoint, an export or a run with data.canonical_focal")
    parser.add_argument("run_without", type=Path, help="the same without")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of data.* and eval.*")
    parser.add_argument("--data", help="the frames; default: those the recipe of RUN_WITH names")
    parser.add_argument("--source", help="form of the frames; default: as they look")
    parser.add_argument("--split", default="val")
    parser.add_argument("--size", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="pixels that pictures have")
    parser.add_argument("--frames", type=int, default=200, help="at most so many, evenly spread")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    main()
