"""Golden images: fixed inputs on which a network must predict the same after it was copied, loaded and compiled.

They are rendered rooms with all further inputs, so that they suit every network. The predictions at the time of the
promotion are stored with a version, and with each of its exports; a replica whose predictions differ does not serve it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.errors import CheckpointError
from depthray.storage import local

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.batch import Sample
    from depthray.config.sections import Data
    from depthray.predict import Predictor

SEED = 20
FRAMES = (0, 5, 10)  # three rooms, three poses
GRID = 16  # pixels between two samples of sparse depth
MAX_FACTOR = 2.0  # between the typical depths of two versions; beyond it one of them is probably wrong
MIN_SPREAD = 1e-6  # relative standard deviation of a depth map; below it the map is a constant

COMPARED = {"depth", "mask", "valid"}  # confidence is computed by the same layers

Maps = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Difference:
    """How much two networks differ on the golden images."""

    typical: float  # median over pixels of the factor between them, at least 1
    relative: float  # 99th percentile of the relative difference; of a mask of the difference


def samples(data: Data) -> list[Sample]:
    """The golden images with the inputs of a network, at the size of its input."""
    # Only with a camera that is needed: a compiled network would be compiled again without.
    keys = (*data.inputs, "intrinsics") if data.canonical_focal else data.inputs
    return [_sample(frame, keys, data.size) for frame in FRAMES]


def _sample(frame: int, keys: Sequence[str], size: tuple[int, int]) -> Sample:
    from depthray.data.rendering.render import render_frame

    rendered: dict[str, Any] = dict(render_frame(SEED, frame, height=size[0], width=size[1]))
    rendered["sparse"] = np.zeros_like(rendered["depth"])
    rendered["sparse"][::GRID, ::GRID] = rendered["depth"][::GRID, ::GRID]
    return {key: rendered[key] for key in keys}  # type: ignore[return-value]


def answers(predictor: Predictor) -> list[Maps]:
    """The predictions of a network for the golden images; CheckpointError if one is no valid depth or mask."""
    data = predictor.recipe.data
    predictions = [predictor.run([sample])[0] for sample in samples(data)]
    for maps in predictions:
        for key, values in maps.items():
            if fault := fault_of(key, values):
                raise CheckpointError(f"on a golden image the network's {key} is {fault}")
    return predictions


def write(path: Path, answers: Sequence[Maps]) -> None:
    """Write predictions for the golden images to a file, at once."""
    arrays = {f"{index}-{key}": values for index, maps in enumerate(answers) for key, values in maps.items()}
    file = BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # it has options besides
    local.replace(path, file.getvalue())


def read(path: Path) -> list[Maps]:
    """The predictions in a file; OSError, ValueError or EOFError where they cannot be read."""
    answers: dict[int, Maps] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            index, _, target = key.partition("-")
            answers.setdefault(int(index), {})[target] = arrays[key]
    return [answers[index] for index in sorted(answers)]


def fault_of(key: str, values: NDArray[np.float32]) -> str:
    """(H,W) prediction -> why it is no valid depth or mask; empty if it may be one."""
    if not np.isfinite(values).all():
        return "not a number everywhere"
    if key in ("mask", "confidence", "valid"):
        return "" if values.min() >= 0 and values.max() <= 1 else "no probability"
    if values.min() < 0 or values.max() <= 0:
        return "not positive"
    return "the same everywhere" if key == "depth" and values.std() <= MIN_SPREAD * values.mean() else ""


def difference(predicted: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> Difference:
    """Predictions of two networks for the golden images, resized if they differ in size -> how much they differ."""
    from depthray.imaging import sheets

    typical, relative = [1.0], [0.0]
    for ours, theirs in zip(predicted, expected, strict=True):
        for key in ours.keys() & theirs.keys() & COMPARED:
            a = ours[key]
            b = sheets.resize_map(theirs[key], a.shape)
            if key == "depth":
                typical.append(float(np.exp(np.median(np.abs(np.log(a.clip(1e-3) / b.clip(1e-3)))))))
            scale = np.maximum(b, 1e-3) if key == "depth" else 1.0
            relative.append(float(np.percentile(np.abs(a - b) / scale, 99)))
    return Difference(float(np.max(typical)), float(np.max(relative)))  # unlike max(), NumPy's keeps a NaN
