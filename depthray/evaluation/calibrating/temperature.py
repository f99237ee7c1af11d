"""The factor of the deviations that a network predicts by which its intervals hold what they say, and whether it helps.

Temperature scaling as Laves et al. 2020 (arXiv:2104.12376) have it for regression: one number for all pixels, which
leaves their order as it is. It is the one whose intervals of 68 and 95 % hold nearest to these shares (least squares of
the two misses), each frame with the same weight; a likelihood would follow the few largest errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from depthray.config.sections import Recipe, Uncertainty
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.sources import open_source
from depthray.errors import DataError
from depthray.evaluation import protocols
from depthray.evaluation.calibrating.cross_validation import folds_of
from depthray.evaluation.calibrating.log_line import Values
from depthray.evaluation.calibrating.pairs import draw
from depthray.evaluation.evaluate import predictions
from depthray.evaluation.uncertainty.sparsification import at_size_of
from depthray.models.layers.confidence import interval
from depthray.runtimes.open import OpenedModel

SHARES = (0.68, 0.95)
FACTORS = np.geomspace(0.05, 20, 1201)  # half a percent apart; beyond their ends a network says nothing
LEAST_GAIN = 0.01  # of all pixels, by which the misses on held-out frames fall where a factor is worth having


class FrameDeviations(NamedTuple):
    """Pixels of one frame with their errors of ln depth as multiples of the deviation that was predicted."""

    scene: str
    values: Values  # (n,)


@dataclass(frozen=True)
class TemperatureDecision:
    """What held-out frames say of a temperature: shares of their pixels in the intervals of SHARES."""

    factor: float  # fitted to all frames
    before: tuple[float, ...]
    after: tuple[float, ...]
    how: str  # what was held out, in words

    @property
    def gains(self) -> bool:
        """Whether intervals of held-out frames hold clearly nearer to what they say."""
        return miss(self.before) - miss(self.after) >= LEAST_GAIN


def of_frames(opened: OpenedModel, recipe: Recipe, *, side: str) -> tuple[list[FrameDeviations], str]:
    """The frames of one side of a recipe's data -> their deviations, and the data's fingerprint."""
    source, protocol = open_source(recipe.data), protocols.of(recipe)
    batches = eval_batches(
        source, split.side(source.frames, recipe.data, side), recipe.data, batch_size=recipe.eval.batch_size
    )
    found = []
    for scored in predictions(opened.network.eval(), batches, protocol=protocol, device=opened.device):
        if scored.depth is None or "log_sigma" not in scored.prediction:
            raise DataError("the network predicts no confidence of depth; train one with model.uncertainty=laplace")
        logs = at_size_of(scored.depth.truth, scored.prediction["log_sigma"])
        maps = (each[:, 0].cpu().numpy() for each in (*scored.depth, logs))
        for place, (index, depth, truth, valid, log) in enumerate(zip(scored.indices, *maps, strict=True)):
            drawn = draw(valid & (depth > 0), index)
            if len(drawn):
                depth, truth, log = (each.ravel()[drawn].astype(np.float64) for each in (depth, truth, log))
                values = np.abs(np.log(depth / truth)) * np.exp(-log)
                found.append((index, FrameDeviations(scored.batch["scene"][place], values)))
    return [frame for _, frame in sorted(found, key=lambda pair: pair[0])], source.fingerprint


def decide(frames: Sequence[FrameDeviations], family: Uncertainty) -> TemperatureDecision:
    """Fit on all but some scenes and cover those, in turn; then fit on all. DataError for fewer than 5 frames."""
    folds, how = folds_of([frame.scene for frame in frames])
    covered = _covered(frames, family)
    after = np.empty((len(frames), len(SHARES)))
    for fold in folds:
        outside = sorted({*range(len(frames))} - {*fold})
        after[fold] = covered[fold, :, _best(covered[outside])]
    as_it_is = int(np.argmin(np.abs(np.log(FACTORS))))
    before, held_out = (tuple(each.mean(axis=0).tolist()) for each in (covered[:, :, as_it_is], after))
    return TemperatureDecision(float(FACTORS[_best(covered)]), before, held_out, how)


def fit(frames: Sequence[FrameDeviations], family: Uncertainty) -> float:
    """The factor whose intervals hold nearest to what they say, one of FACTORS."""
    return float(FACTORS[_best(_covered(frames, family))])


def miss(shares: Sequence[float]) -> float:
    """How far shares of pixels are from SHARES: the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(np.subtract(shares, SHARES)))))


def _covered(frames: Sequence[FrameDeviations], family: Uncertainty) -> Values:
    """-> (N,SHARES,FACTORS) the share of each frame's pixels in the intervals of deviations times each factor"""
    ends = np.array([interval(share, family) for share in SHARES])[:, None] * FACTORS
    return np.stack(
        [np.searchsorted(np.sort(frame.values), ends, side="right") / len(frame.values) for frame in frames]
    )


def _best(covered: Values) -> int:
    """(N,SHARES,FACTORS) -> the place of the factor with the least miss, each frame with the same weight"""
    misses = np.square(covered.mean(axis=0) - np.array(SHARES)[:, None]).sum(axis=0)
    return int(np.argmin(misses))
