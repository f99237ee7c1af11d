"""What training gained over the weights that it started from: the same frames scored before and after, in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from depthray import distributed
from depthray.config.metric_names import rank_key
from depthray.config.sections import Recipe
from depthray.evaluation import bootstrap, metrics, protocols
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.metrics import METRICS
from depthray.evaluation.report import Evaluation
from depthray.training.frames import Frames

VALIDATION = "validation"  # the name of the run's own validation frames among data sets
SHOWN = ("abs_rel", "rmse", "delta1", "iou")
LEAST_SCENES = 6  # of fewer scenes that all improve, chance alone explains more than 1 in 20
Verdict = Literal["better", "worse", "within luck", "too few scenes", ""]
Table = NDArray[np.float64]


@dataclass(frozen=True)
class FrameScores:
    """What each frame of a data set scored, which a paired comparison needs; kept in checkpoints."""

    ids: tuple[str, ...]
    scenes: tuple[str, ...]
    names: tuple[str, ...]  # metrics
    table: Table  # (N,M), NaN where a frame has no scored pixel
    sums: Table  # (N,K) sums over pixels of a protocol that pools them, else (N,0)

    @classmethod
    def of(cls, evaluation: Evaluation, monitor: str) -> FrameScores:
        """The scores of an evaluation's frames in a few metrics."""
        names = tuple(name for name in evaluation.names if name in (*SHOWN, monitor)) or evaluation.names
        columns = [evaluation.names.index(name) for name in names]
        is_pooled = evaluation.protocol.pooled and evaluation.has_depth
        return cls(
            ids=tuple(row.id for row in evaluation.rows),
            scenes=tuple(row.scene for row in evaluation.rows),
            names=names,
            table=evaluation.table[:, columns],
            sums=evaluation.sums[:, 0, :] if is_pooled else np.empty((len(evaluation.rows), 0)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        texts = {"ids": list(self.ids), "scenes": list(self.scenes), "names": list(self.names)}
        return {**texts, "table": torch.tensor(self.table), "sums": torch.tensor(self.sums)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> FrameScores:
        """What `state_dict` returned."""
        ids, scenes, names = (tuple(state[key]) for key in ("ids", "scenes", "names"))
        return cls(ids, scenes, names, state["table"].numpy(), state["sums"].numpy())

    @property
    def stacked(self) -> Table:
        """-> (N,M+K) table and sums."""
        return np.concatenate([self.table, self.sums], axis=1)

    def means(self) -> dict[str, float]:
        """The score by metric: the mean over frames, or over the pixels of all frames where the protocol pools."""
        means = metrics.average(self.table, self.names)
        if not self.sums.shape[1]:
            return means
        pooled = metrics.scores(self.sums[:, None], pooled=True)
        return {name: pooled.get(name, value) for name, value in means.items()}

    def finish(self, means: Table) -> Table:
        """(...,M+K) means of `table` and `sums` over drawn frames -> (...,M) scores."""
        count = len(self.names)
        if not self.sums.shape[1]:
            return means
        pooled = metrics.image_scores(means[..., count:])
        columns = [
            pooled[..., METRICS.index(name)] if name in METRICS else means[..., place]
            for place, name in enumerate(self.names)
        ]
        return np.stack(columns, axis=-1)


Scores = dict[str, FrameScores]  # by data set: VALIDATION, and the paths of eval.also


class ScoreInterval(NamedTuple):
    """A score with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricGain:
    """A metric of a data set before and after training, and their difference with an interval of its own."""

    metric: str
    after: ScoreInterval
    before: ScoreInterval | None = None  # None: the weights at the start could not predict, or the set was not scored
    difference: ScoreInterval | None = None
    verdict: Verdict = ""


def compare(before: FrameScores | None, after: FrameScores) -> list[MetricGain]:
    """Every metric of the same frames before and after training."""
    scenes = after.scenes
    if before is None or (before.ids, before.names) != (after.ids, after.names):
        ends = bootstrap.intervals(after.stacked, scenes, finish=after.finish)
        means = after.means()
        return [
            MetricGain(name, ScoreInterval(means[name], *column))
            for name, column in zip(after.names, ends.T.tolist(), strict=True)
        ]
    # A frame without one of the scores has no difference; both means are over the frames that have one.
    missing = np.isnan(before.table) | np.isnan(after.table)
    first, second = (replace(side, table=np.where(missing, np.nan, side.table)) for side in (before, after))
    ends = bootstrap.paired_intervals(first.stacked, second.stacked, scenes, finish=after.finish)
    return [_metric_gain(name, (first, second), ends[:, :, place]) for place, name in enumerate(after.names)]


def _metric_gain(name: str, sides: tuple[FrameScores, FrameScores], ends: Table) -> MetricGain:
    """(3,2) ends of the intervals of before, after and difference -> the gain in a metric."""
    before, after = (side.means()[name] for side in sides)
    means = (before, after, after - before)
    first, second, difference = (ScoreInterval(mean, *pair) for mean, pair in zip(means, ends.tolist(), strict=True))
    return MetricGain(name, second, first, difference, _verdict(name, difference, sides[1].scenes))


def _verdict(metric: str, difference: ScoreInterval, scenes: tuple[str, ...]) -> Verdict:
    units = len(set(scenes)) if len(set(scenes)) > 1 else len(scenes)  # what the bootstrap draws
    if units < LEAST_SCENES:
        return "too few scenes"
    low, high = sorted(rank_key(metric, end) for end in (difference.low, difference.high))
    if high < 0:
        return "better"
    return "worse" if low > 0 else "within luck"


def score_further(recipe: Recipe, network: nn.Module, frames: Frames, device: torch.device) -> Scores:
    """The data sets of `eval.also` as a network scores on them; equal on every process."""
    protocol = protocols.of(recipe)
    return {
        each.path: FrameScores.of(
            evaluate(network, each.batches(), protocol=protocol, device=device), recipe.eval.monitor
        )
        for each in frames.further
    }


def score_weights(
    recipe: Recipe, network: nn.Module, weights: Mapping[str, torch.Tensor] | None, frames: Frames, device: torch.device
) -> Scores:
    """Validation frames and further data sets as weights score on them, which are loaded into the network.

    Every process calls it; the weights are those of rank 0.
    """
    if weights is not None and distributed.is_main():
        network.load_state_dict(weights)
    for live in network.state_dict().values():
        # A copy, as tensors are broadcast only where their memory is in order.
        shared = live.detach().contiguous()
        distributed.copy_from_main(shared)
        live.copy_(shared)
    evaluation = evaluate(network, frames.val_batches(), protocol=protocols.of(recipe), device=device)
    own = {VALIDATION: FrameScores.of(evaluation, recipe.eval.monitor)}
    return own | score_further(recipe, network, frames, device)
