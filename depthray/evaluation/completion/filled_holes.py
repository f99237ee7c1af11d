"""Pictures and scores of how the holes of a sensor are filled, by a completion network and by fills that learn nothing.

The network is given what the sensor measured but for further holes in the shape of its own (the pattern `holes`), so
that one prediction fills real holes, which are looked at, and hidden ones, whose depth is known and scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from depthray import models
from depthray.batch import Batch, Metres, to_device
from depthray.config.sections import Recipe
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.errors import DataError, UsageError
from depthray.evaluation import protocols
from depthray.evaluation.completion.fills import JointBilateralFill, SpreadSamples
from depthray.evaluation.completion.regions import edges, region_scores, regions, score_name
from depthray.evaluation.markdown_table import markdown_table
from depthray.imaging import sheets
from depthray.imaging.edges import sharpness
from depthray.runtimes.open import open_model
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json

LOOKED_AT = 64  # frames, spread over those there are, among which those with the largest holes are chosen
LEAST, MOST = 0.005, 0.6  # share of a frame that is holes
PATTERN = "holes"
SCORES = {  # of a fill: what is in the table
    "rmse": "RMSE in hidden holes [m]",
    "abs_rel": "AbsRel there",
    "edges": "RMSE at edges in them [m]",
    "sharpness": "sharpness of edges",
}
NOTE = (
    "Hidden holes: measured pixels that no fill was given, in the shape of the sensor's own holes. Sharpness: the "
    "slope of a fill at edges of the truth as a share of the truth's own; below 1 edges are smeared. In the picture "
    "the error is shown where the sensor measured; real holes have no truth, and are for eyes."
)


@dataclass(frozen=True)
class FilledFrame:
    """A frame and what fills say of it."""

    id: str
    scene: str
    image: sheets.RgbImage  # pale where depth was hidden
    sensor: Metres  # (H,W) as measured
    filled: Metres  # (h,w) by the network
    holes: float  # share of the frame without depth
    hidden: float  # share that is measured and was hidden
    scores: dict[str, dict[str, float]]  # fill -> score by name of SCORES


def fill(
    path: Path, recipe: Recipe, *, frames: int, side: str, device: torch.device, trust: bool = False
) -> list[FilledFrame]:
    """The frames of one side of a recipe's data with the largest holes, of as many scenes as there are.

    Raises DataError where no frame has holes.
    """
    sparse = recipe.data.sparse.model_copy(update={"pattern": PATTERN, "dropout": 0.0, "margin": 0.0})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sparse": sparse})})
    if "image" not in recipe.data.inputs:
        raise UsageError("--holes needs a network that reads the image too")
    source = open_source(recipe.data)
    chosen = _with_holes(source, split.side(source.frames, recipe.data, side), frames)
    if not chosen:
        raise DataError(
            f"{recipe.data.place}: no frame has holes of {LEAST:.1%} to {MOST:.0%} of its pixels; give --data with the "
            "depth that a sensor measured, not filled"
        )
    network = open_model(path, device=device, trust=trust).network.eval()
    fills: dict[str, nn.Module] = {"network": network, "spread": SpreadSamples(), "bilateral": JointBilateralFill()}
    return list(_filled(fills, recipe, source, chosen, device))


def _with_holes(source: Source, indices: Sequence[int], most: int) -> list[int]:
    """At most so many frames, those with the largest holes first, a scene's second only after the first of all."""
    places = np.linspace(0, len(indices) - 1, min(LOOKED_AT, len(indices))).round().astype(int)
    shares = {indices[place]: float((source.read(indices[place])["depth"] == 0).mean()) for place in places}
    ranked = sorted((index for index in shares if LEAST <= shares[index] <= MOST), key=lambda index: -shares[index])
    seen: dict[str, int] = {}
    turns = []
    for index in ranked:
        scene = source.frames[index].scene
        seen[scene] = seen.get(scene, 0) + 1
        turns.append((seen[scene], index))
    return [index for _, index in sorted(turns, key=lambda turn: turn[0])[:most]]


def _filled(
    fills: dict[str, nn.Module], recipe: Recipe, source: Source, chosen: Sequence[int], device: torch.device
) -> Iterator[FilledFrame]:
    data, protocol = protocols.scored_data(recipe), protocols.of(recipe)
    for (index,), loaded in eval_batches(source, chosen, data, batch_size=1):
        batch = to_device(loaded, device, min_depth=data.min_depth, max_depth=data.max_depth)
        with torch.inference_mode():
            predicted = {name: models.run(network, batch)["depth"].float() for name, network in fills.items()}
        sensor = batch["depth"]
        unseen = regions(batch["sparse"], sensor)["unsampled"] & (sensor > 0)
        compared = {name: protocols.compare(depth, sensor, protocol) for name, depth in predicted.items()}
        scores = {name: _scores(batch, depth, unseen) for name, depth in compared.items()}
        frame = source.frames[index]
        yield FilledFrame(
            id=frame.id,
            scene=frame.scene,
            image=_pale(np.asarray(source.read(index)["image"]), unseen[0, 0].cpu().numpy()),
            sensor=_array(sensor),
            filled=_array(predicted["network"]),
            holes=float((sensor == 0).float().mean()),
            hidden=float(unseen.float().mean()),
            scores=scores,
        )


def _scores(batch: Batch, depth: Any, unseen: Tensor) -> dict[str, float]:
    """A compared fill and the hidden pixels (1,1,H,W) -> its scores by name; NaN without a pixel"""
    found = {name: float(value[0]) for name, value in region_scores(batch, depth).items()}
    at_edges = unseen & edges(depth.truth) & depth.valid
    error = (depth.prediction - depth.truth)[at_edges].double()
    near = edges(depth.truth) & depth.valid
    slopes = sharpness(_array(depth.prediction.where(near, 0.0)), _array(depth.truth.where(near, 0.0)))
    return {
        "rmse": found[score_name("rmse", "unsampled")],
        "abs_rel": found[score_name("abs_rel", "unsampled")],
        "edges": math.sqrt(float(error.square().mean())) if error.numel() else math.nan,
        "sharpness": slopes.ratio,
    }


def write(filled: Sequence[FilledFrame], out: Path) -> None:
    """Write holes.png, .md and .json into a folder, which is made if need be."""
    with translate_os_errors(out, to=UsageError, doing="write the filled holes", advice="give another --out"):
        out.mkdir(parents=True, exist_ok=True)
        sheets.save_png(out / "holes.png", sheet(filled))
        (out / "holes.md").write_text(markdown(filled), encoding="utf-8")
        (out / "holes.json").write_text(to_json(as_tree(filled), indent=2) + "\n", encoding="utf-8")


def sheet(filled: Sequence[FilledFrame]) -> sheets.RgbImage:
    """(H,W,3) uint8 RGB: a line of image, depth of the sensor, filled depth and error a frame, with its scores."""
    rows = [
        sheets.SheetRow(frame.id, frame.image, frame.sensor, frame.filled, caption=_caption(frame)) for frame in filled
    ]
    return sheets.draw_sheet(rows, columns=("image, pale: hidden", "sensor", "filled", "error"), title="Filled holes")


def markdown(filled: Sequence[FilledFrame]) -> str:
    """The mean of each score over the frames, for people."""
    means = as_tree(filled)["means"]
    table = markdown_table(
        ["fill", *SCORES.values()], [[name, *map(_number, scores.values())] for name, scores in means.items()]
    )
    frames = markdown_table(
        ["frame", "holes", "hidden", *(f"RMSE {name}" for name in means)],
        [
            [
                frame.id,
                f"{frame.holes:.1%}",
                f"{frame.hidden:.1%}",
                *(_number(frame.scores[fill]["rmse"]) for fill in means),
            ]
            for frame in filled
        ],
    )
    return f"# Filled holes\n\nMeans over {len(filled)} frames.\n\n{table}\n\n{NOTE}\n\n{frames}\n"


def as_tree(filled: Sequence[FilledFrame]) -> dict[str, Any]:
    """The scores as plain values: means over frames by fill, and each frame."""
    frames = [
        {"id": each.id, "scene": each.scene, "holes": each.holes, "hidden": each.hidden, "scores": each.scores}
        for each in filled
    ]
    means = {
        fill: {name: _mean([frame.scores[fill][name] for frame in filled]) for name in SCORES}
        for fill in filled[0].scores
    }
    return {"means": means, "frames": frames}


def _caption(frame: FilledFrame) -> str:
    errors = ", ".join(f"{name} {_number(scores['rmse'])}" for name, scores in frame.scores.items())
    return f"holes {frame.holes:.0%}, hidden {frame.hidden:.0%}: RMSE there {errors} m"


def _pale(image: sheets.RgbImage, where: NDArray[np.bool_]) -> sheets.RgbImage:
    """(H,W,3) uint8 RGB, (H,W) bool -> the image, half way to white there"""
    return np.where(where[..., None], 128 + image // 2, image).astype(np.uint8)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _array(values: Tensor) -> Metres:
    """(1,1,H,W) -> (H,W) float32"""
    return np.asarray(values[0, 0].float().cpu().numpy(), np.float32)
