"""Bootstrap intervals of a mean over frames; whole scenes are drawn, since frames of a scene are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 0

Values = NDArray[np.float64]


def intervals(
    table: Values, scenes: Sequence[str], *, finish: Callable[[Values], Values] = lambda means: means
) -> Values:
    """(N,M) metrics of N frames and their scenes -> (2,M) ends of the 95 % interval of the mean over frames.

    Whole scenes are drawn with replacement; frames, where there is only one scene. Percentiles of 1000 seeded draws.
    A metric is drawn from the frames that have it, that is where it is not NaN. `finish` turns the
    means of each draw into the score that the interval is for.
    """
    names, there = np.asarray(scenes), ~np.isnan(table)
    drawn = np.full((RESAMPLES, table.shape[1]), np.nan)
    # Metrics that lack the same frames are drawn together.
    for kept in np.unique(there, axis=1).T:
        columns = (there == kept[:, None]).all(axis=0)
        if kept.any():
            drawn[:, columns] = means(table[kept][:, columns], names[kept])
    return np.percentile(finish(drawn), [2.5, 97.5], axis=0)


def paired_intervals(
    before: Values, after: Values, scenes: Sequence[str], *, finish: Callable[[Values], Values] = lambda means: means
) -> Values:
    """(N,M) metrics of the same N frames, twice -> (3,2,M) ends of 95 % intervals: before, after, after - before.

    All three are of the same draws: what makes a scene hard for both cancels in the difference.
    """
    columns = before.shape[1]

    def finish_both(drawn: Values) -> Values:
        first, second = finish(drawn[:, :columns]), finish(drawn[:, columns:])
        return np.concatenate([first, second, second - first], axis=1)

    ends = intervals(np.concatenate([before, after], axis=1), scenes, finish=finish_both)
    return np.moveaxis(ends.reshape(2, 3, -1), 0, 1)


def means(table: Values, scenes: NDArray[np.str_]) -> Values:
    """(N,M) values of N frames and their scenes -> (1000,M) means over the frames of each draw."""
    names, members = np.unique(scenes, return_inverse=True)
    if len(names) < 2:  # draws of one scene would all be alike
        members = np.arange(len(table))
    clusters = int(members.max()) + 1
    sums = np.stack([np.bincount(members, weights=column, minlength=clusters) for column in table.T], axis=-1)
    counts = np.bincount(members, minlength=clusters)
    rng = np.random.default_rng(SEED)  # anew in each call: an interval must not depend on what else is scored
    result = np.empty((RESAMPLES, table.shape[1]))
    for mean in result:
        drawn = rng.integers(clusters, size=clusters)
        mean[:] = sums[drawn].sum(axis=0) / counts[drawn].sum()
    return result
