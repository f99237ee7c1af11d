"""Golden images: what a network must still say after it was copied, loaded and compiled, before anybody hears it.

Rendered rooms with all further inputs, so that each network can be asked. What a version said when it was promoted is
kept beside it; a replica that loads it and says something else does not serve it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.errors import CheckpointError

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.batch import Sample
    from depthray.predict import Predictor

SEED = 20
FRAMES = (0, 5, 10)  # three rooms, three poses
GRID = 16  # pixels between two samples of sparse depth
APART = 2.0  # factor between two versions' typical depths beyond which one of them is not to be trusted
FLATTEST = 1e-6  # relative spread of a depth map that is more than a constant

Maps = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Difference:
    """How far two networks are apart on the golden images."""

    typical: float  # median over pixels of the factor between them, at least 1
    relative: float  # 99th percentile of the relative difference; of a mask of the difference


def samples(inputs: Sequence[str], size: tuple[int, int]) -> list[Sample]:
    """The golden images with further inputs, at the (H,W) pixels the network sees."""
    return [_sample(frame, inputs, size) for frame in FRAMES]


def _sample(frame: int, inputs: Sequence[str], size: tuple[int, int]) -> Sample:
    from depthray.data.rendering.render import render_frame

    rendered: dict[str, Any] = dict(render_frame(SEED, frame, height=size[0], width=size[1]))
    rendered["sparse"] = np.zeros_like(rendered["depth"])
    rendered["sparse"][::GRID, ::GRID] = rendered["depth"][::GRID, ::GRID]
    return {key: rendered[key] for key in inputs}  # type: ignore[return-value]


def answers(predictor: Predictor) -> list[Maps]:
    """What a network says of the golden images; CheckpointError where it is no depth or mask at all."""
    data = predictor.recipe.data
    found = [predictor.run([sample])[0] for sample in samples(data.inputs, data.size)]
    for maps in found:
        for key, values in maps.items():
            if fault := fault_of(key, values):
                raise CheckpointError(f"on a golden image the network's {key} is {fault}")
    return found


def fault_of(key: str, values: NDArray[np.float32]) -> str:
    """(H,W) -> why this is no depth or mask; empty where nothing speaks against it."""
    if not np.isfinite(values).all():
        return "not a number everywhere"
    if key == "mask":
        return "" if values.min() >= 0 and values.max() <= 1 else "no probability"
    if values.min() < 0 or values.max() <= 0:
        return "not positive"
    return "the same everywhere" if values.std() <= FLATTEST * values.mean() else ""


def difference(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> Difference:
    """Answers of two networks to the golden images, resized where they differ in size -> how far they are apart."""
    typical, relative = [1.0], [0.0]
    for ours, theirs in zip(found, wanted, strict=True):
        for key in ours.keys() & theirs.keys():
            a, b = _matched(ours[key], theirs[key])
            if key == "depth":
                typical.append(float(np.exp(np.median(np.abs(np.log(a.clip(1e-3) / b.clip(1e-3)))))))
            scale = np.maximum(b, 1e-3) if key == "depth" else 1.0
            relative.append(float(np.percentile(np.abs(a - b) / scale, 99)))
    return Difference(float(np.max(typical)), float(np.max(relative)))  # NaN stays NaN


def _matched(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    import cv2

    if a.shape != b.shape:
        b = np.asarray(cv2.resize(b, a.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    return a, b
