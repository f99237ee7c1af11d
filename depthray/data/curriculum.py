"""Curriculum: the training frames cut into chunks that are trained on one after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from depthray.data.sources import Source
from depthray.sections import Curriculum


def cut(indices: list[int], source: Source, section: Curriculum, *, seed: int) -> list[list[int]]:
    """Training indices -> chunks of equal size up to one frame; `difficulty` puts easy frames into the first."""
    if section.chunks == 1:
        return [list(indices)]
    if section.order == "random":
        ordered = np.random.default_rng([seed, section.chunks]).permutation(indices)
    else:
        scores = [difficulty(source.read(index)["depth"]) for index in indices]
        ordered = np.asarray(indices)[np.argsort(scores, kind="stable")]
    return [chunk.tolist() for chunk in np.array_split(ordered, section.chunks)]


def difficulty(depth: NDArray[np.float32]) -> float:
    """(H,W) metres -> how much structure a frame has: mean |difference of ln depth| of neighbours, over measured pairs.

    An empty wall scores near 0, a cluttered room high. A frame with nothing measured is the hardest: there is least to
    learn from it.
    """
    measured = depth > 0
    log_depth = np.log(np.where(measured, depth, 1.0))
    total, pairs = 0.0, 0
    for axis in (0, 1):
        both = np.take(measured, range(1, depth.shape[axis]), axis) & np.take(
            measured, range(depth.shape[axis] - 1), axis
        )
        total += float(np.abs(np.diff(log_depth, axis=axis))[both].sum())
        pairs += int(both.sum())
    return total / pairs if pairs else float("inf")
