"""How far a mean over frames may be trusted: bootstrap intervals, drawn by scene, since frames of a scene are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 0


def intervals(table: NDArray[np.float64], scenes: Sequence[str]) -> NDArray[np.float64]:
    """(N,M) metrics of N frames and their scenes -> (2,M) ends of the 95 % interval of the mean over frames.

    Whole scenes are drawn with replacement; frames, where there is only one scene. Percentiles of 1000 seeded draws.
    """
    names, members = np.unique(scenes, return_inverse=True)
    if len(names) < 2:
        members = np.arange(len(table))
    clusters = int(members.max()) + 1
    sums = np.stack([np.bincount(members, weights=column, minlength=clusters) for column in table.T], axis=-1)
    counts = np.bincount(members, minlength=clusters)
    rng = np.random.default_rng(SEED)
    means = np.empty((RESAMPLES, table.shape[1]))
    for mean in means:
        drawn = rng.integers(clusters, size=clusters)
        mean[:] = sums[drawn].sum(axis=0) / counts[drawn].sum()
    return np.percentile(means, [2.5, 97.5], axis=0)
