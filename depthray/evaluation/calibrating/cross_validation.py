"""Whether a calibration helps where it was not fitted: scenes are held out in turn, or parts of one scene in time.

What it gains on the parts is held against how much that differs from part to part, by Student's paired t-test
(Biometrika 1908), one-sided. Of five scenes or more, or of points of as many photographs, 80 % are enough: a scale
that is fitted to the others misses a little, so that one that is right already seems to lose, and is corrected by 2 to
4 of a hundred draws of twenty points (`benchmarks/few_points.py` counts them). Parts of one scene are alike, and a
slope does harm at depths that it was not fitted to: for these it is 95 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from depthray.errors import DataError
from depthray.evaluation.calibrating.log_line import AS_IT_IS, FramePairs, LogLine, fit_line, fit_scale

FOLDS = 10  # at most, of scenes
MANY_SCENES = 5  # from which on less is asked of each
BLOCKS = 5  # of the frames of one scene, as they follow each other
LEAST_FRAMES = 5
LEAST_GAIN = 0.03  # of AbsRel, below which a correction is not worth having
# Standard errors by which the mean gain of 2, 3 ... 10 folds must be above 0: percentiles of Student's t.
BEYOND_LUCK = {
    0.80: (1.376, 1.061, 0.978, 0.941, 0.920, 0.906, 0.896, 0.889, 0.883),
    0.95: (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833),
}

Fit = Callable[[Sequence[FramePairs]], LogLine]


@dataclass(frozen=True)
class HeldOut:
    """AbsRel of a kind of correction on the frames that its fits have not seen."""

    name: str
    mean: float  # over all frames
    folds: tuple[float, ...]  # the mean of each fold

    def gains_over(self, other: HeldOut, *, level: float) -> bool:
        """Whether it is better by enough, and beyond the luck of which folds there are: by a test at `level`."""
        gains = np.subtract(other.folds, self.folds)
        error = gains.std(ddof=1) / len(gains) ** 0.5
        is_lucky = gains.mean() <= BEYOND_LUCK[level][len(gains) - 2] * error
        return self.mean <= (1 - LEAST_GAIN) * other.mean and not is_lucky


@dataclass(frozen=True)
class Decision:
    """What held-out frames say of each kind of correction, and the correction that they support."""

    rows: tuple[HeldOut, ...]  # as it is, scale, and scale and slope where a slope can be fitted
    line: LogLine  # fitted to all frames; as it is where nothing is gained
    how: str  # what was held out, in words

    @property
    def chosen(self) -> HeldOut:
        """The row of the line."""
        return self.rows[0 if self.line == AS_IT_IS else 1 if self.line.slope == 1.0 else 2]


def decide(frames: Sequence[FramePairs]) -> Decision:
    """Fit and hold out in turn; a scale is taken where it gains, a slope where it gains over the scale, too.

    A slope needs several scenes: it bends to the depths of one, whose parts are too alike to show that.
    Raises DataError for fewer than 5 frames.
    """
    folds, how = folds_of([frame.scene for frame in frames])
    plain, scale, line = (
        _held_out(name, fit, frames, folds)
        for name, fit in (("as it is", lambda _: AS_IT_IS), ("scale", fit_scale), ("scale and slope", fit_line))
    )
    rows = (plain, scale) if line.folds == scale.folds else (plain, scale, line)
    scenes = len({frame.scene for frame in frames})
    if scenes > 1 and all(line.gains_over(other, level=0.95) for other in (plain, scale)):
        return Decision(rows, fit_line(frames), how)
    gains = scale.gains_over(plain, level=0.80 if scenes >= MANY_SCENES else 0.95)
    return Decision(rows, fit_scale(frames) if gains else AS_IT_IS, how)


def _held_out(name: str, fit: Fit, frames: Sequence[FramePairs], folds: Sequence[Sequence[int]]) -> HeldOut:
    means, scores = [], []
    for fold in folds:
        outside = set(range(len(frames))) - set(fold)
        line = fit([frames[place] for place in sorted(outside)])
        errors = [line.abs_rel(frames[place]) for place in fold]
        scores += errors
        means.append(float(np.mean(errors)))
    return HeldOut(name, float(np.mean(scores)), tuple(means))


def folds_of(frames: Sequence[str]) -> tuple[list[list[int]], str]:
    """The scene of each frame -> positions of the frames that are held out together, and what they are.

    Raises DataError for fewer than 5 frames.
    """
    if len(frames) < LEAST_FRAMES:
        raise DataError(f"{len(frames)} frames with measured depth are too few to hold some out; give {LEAST_FRAMES}")
    scenes = list(dict.fromkeys(frames))
    if len(scenes) < 2:
        blocks = [block.tolist() for block in np.array_split(np.arange(len(frames)), BLOCKS)]
        return blocks, f"{BLOCKS} parts of one scene, as its frames follow each other"
    count = min(FOLDS, len(scenes))
    of_scene = {scene: place % count for place, scene in enumerate(scenes)}
    folds: list[list[int]] = [[] for _ in range(count)]
    for place, scene in enumerate(frames):
        folds[of_scene[scene]].append(place)
    return folds, f"{len(scenes)} scenes, in {count} parts"
