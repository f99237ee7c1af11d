"""Depth that is predicted and measured: the pixels of a data set's frames, or single points of photographs."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthray.config.sections import Recipe
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.sources import open_source
from depthray.errors import DataError
from depthray.evaluation import protocols
from depthray.evaluation.calibrating.log_line import FramePairs
from depthray.evaluation.evaluate import predictions
from depthray.runtimes.canonical_depth import focal_lengths
from depthray.runtimes.open import OpenedModel
from depthray.runtimes.passes import Passes

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIXELS = 2000  # of a frame, drawn by its index: more would not change a median
COLUMNS = ("image", "x", "y", "metres")


def of_frames(opened: OpenedModel, recipe: Recipe, *, side: str) -> tuple[list[FramePairs], str]:
    """The frames of one side of a recipe's data with what the network predicts -> pairs, and the data's fingerprint."""
    source, protocol = open_source(recipe.data), protocols.of(recipe)
    chosen = split.side(source.frames, recipe.data, side)
    passes = Passes.of(recipe.eval)
    batches = eval_batches(source, chosen, passes.enlarged(recipe.data), batch_size=recipe.eval.batch_size)
    pairs = []
    network, focal = opened.network.eval(), recipe.data.canonical_focal
    for scored in predictions(network, batches, protocol=protocol, device=opened.device, passes=passes):
        if scored.depth is None:
            raise DataError("the frames have no depth that this network predicts; use data with measured depth")
        predicted, measured, valid = (each[:, 0].cpu().numpy() for each in scored.depth)
        # What is corrected is the network's own depth, which may be that of a canonical camera.
        factors = focal / focal_lengths(scored.batch).flatten().cpu() if recipe.data.scales_labels else None
        for place, index in enumerate(scored.indices):
            drawn = draw(valid[place] & (predicted[place] > 0), index)
            if len(drawn):
                factor = 1.0 if factors is None else float(factors[place])
                logs = (
                    np.log(factor * each[place].ravel()[drawn].astype(np.float64)) for each in (predicted, measured)
                )
                pairs.append((index, FramePairs(scored.batch["id"][place], scored.batch["scene"][place], *logs)))
    # Batches are of one size each; frames of a scene are held out as they follow each other.
    return [frame for _, frame in sorted(pairs, key=lambda pair: pair[0])], source.fingerprint


def read_points(path: Path) -> dict[Path, list[tuple[float, float, float]]]:
    """The lines of a CSV file with the columns image, x, y, metres -> points by image, paths from the file's folder.

    Raises DataError, with the line, for anything else.
    """
    points: dict[Path, list[tuple[float, float, float]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise DataError(f"{path}: no column '{missing[0]}'; the first line must be {','.join(COLUMNS)}")
            for row in reader:
                points[path.parent / row["image"]].append(_point(row, f"{path}, line {reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not points:
        raise DataError(f"{path}: has no points")
    return dict(points)


def of_points(
    points: dict[Path, list[tuple[float, float, float]]], depths: Iterator[tuple[NDArray[np.float32], float]]
) -> list[FramePairs]:
    """Measured points by image, and (H,W) predicted metres of each image -> pairs, a point a frame of its own.

    With the metres comes the factor by which they are those of the network's own camera. Raises DataError for a point
    outside its image.
    """
    pairs = []
    for (image, measured), (depth, factor) in zip(points.items(), depths, strict=True):
        height, width = depth.shape
        for x, y, metres in measured:
            if not (0 <= x < width and 0 <= y < height):
                raise DataError(f"{image}: the point {x:g}, {y:g} is outside of its {width}x{height} pixels")
            predicted = max(float(depth[int(y), int(x)]), 1e-6)
            # Of one image or many: what a point says must hold at the others.
            logs = (np.log([factor * value]) for value in (predicted, metres))
            pairs.append(FramePairs(image.name, image.name, *logs))
    return pairs


def _point(row: dict[str, str], where: str) -> tuple[float, float, float]:
    try:
        x, y, metres = (float(row[name]) for name in COLUMNS[1:])
    except (TypeError, ValueError):
        raise DataError(f"{where}: x, y and metres must be numbers") from None
    if not (np.isfinite([x, y, metres]).all() and metres > 0):
        raise DataError(f"{where}: metres must be above 0")
    return x, y, metres


def draw(valid: NDArray[np.bool_], index: int) -> NDArray[np.int64]:
    """(H,W) where depth is known -> (n,) places of at most PIXELS pixels there, drawn by the index of the frame."""
    places = np.flatnonzero(valid)
    if len(places) <= PIXELS:
        return places
    return np.sort(np.random.default_rng(index).choice(places, PIXELS, replace=False))
