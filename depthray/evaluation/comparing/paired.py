"""Two sets of scores of the same frames, and which of their differences are beyond the luck of the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from depthray.config.metric_names import rank_key
from depthray.evaluation import bootstrap, metrics
from depthray.evaluation.metrics import METRICS
from depthray.evaluation.report import Evaluation

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
        return cls._of_table(evaluation, names, evaluation.table[:, columns], 0)

    @classmethod
    def of_range(cls, evaluation: Evaluation, monitor: str, number: int) -> FrameScores:
        """The same of the pixels in one of RANGES of the true depth; without a metric where depth is not compared."""
        names = tuple(name for name in METRICS if name in (*SHOWN, monitor)) if evaluation.has_depth else ()
        columns = [METRICS.index(name) for name in names]
        return cls._of_table(evaluation, names, metrics.image_scores(evaluation.sums[:, number])[:, columns], number)

    @classmethod
    def _of_table(cls, evaluation: Evaluation, names: tuple[str, ...], table: Table, number: int) -> FrameScores:
        is_pooled = evaluation.protocol.pooled and evaluation.has_depth
        return cls(
            ids=tuple(row.id for row in evaluation.rows),
            scenes=tuple(row.scene for row in evaluation.rows),
            names=names,
            table=table,
            sums=evaluation.sums[:, number, :] if is_pooled else np.empty((len(evaluation.rows), 0)),
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


class ScoreInterval(NamedTuple):
    """A score with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricDifference:
    """A metric of one set of scores and of those it is compared with, and their difference with its own interval."""

    metric: str
    after: ScoreInterval
    before: ScoreInterval | None = None  # None where there is nothing to compare with
    difference: ScoreInterval | None = None
    verdict: Verdict = ""

    def as_tree(self) -> dict[str, Any]:
        """For JSON: intervals as objects, null where there is none."""
        intervals = {"before": self.before, "after": self.after, "difference": self.difference}
        return {**asdict(self), **{key: value._asdict() if value else None for key, value in intervals.items()}}


def of_metric(differences: Sequence[MetricDifference], metric: str) -> MetricDifference:
    """That of a metric; of the first, where this one was not scored."""
    return next((each for each in differences if each.metric == metric), differences[0])


def compare(before: FrameScores | None, after: FrameScores) -> list[MetricDifference]:
    """Every metric of the same frames twice: `after` against `before`, which may be missing or of other frames."""
    scenes = after.scenes
    if before is None or (before.ids, before.names) != (after.ids, after.names):
        ends = bootstrap.intervals(after.stacked, scenes, finish=after.finish)
        means = after.means()
        return [
            MetricDifference(name, ScoreInterval(means[name], *column))
            for name, column in zip(after.names, ends.T.tolist(), strict=True)
        ]
    # A frame without one of the scores has no difference; both means are over the frames that have one.
    missing = np.isnan(before.table) | np.isnan(after.table)
    first, second = (replace(side, table=np.where(missing, np.nan, side.table)) for side in (before, after))
    ends = bootstrap.paired_intervals(first.stacked, second.stacked, scenes, finish=after.finish)
    return [_difference(name, (first, second), ends[:, :, place]) for place, name in enumerate(after.names)]


def _difference(name: str, sides: tuple[FrameScores, FrameScores], ends: Table) -> MetricDifference:
    """(3,2) ends of the intervals of before, after and difference -> what they say of a metric."""
    before, after = (side.means()[name] for side in sides)
    means = (before, after, after - before)
    first, second, difference = (ScoreInterval(mean, *pair) for mean, pair in zip(means, ends.tolist(), strict=True))
    scored = ~np.isnan(sides[1].table[:, sides[1].names.index(name)])
    scenes = [scene for scene, is_scored in zip(sides[1].scenes, scored, strict=True) if is_scored]
    return MetricDifference(name, second, first, difference, _verdict(name, difference, scenes))


def _verdict(metric: str, difference: ScoreInterval, scenes: Sequence[str]) -> Verdict:
    if not scenes:
        return ""
    units = len(set(scenes)) if len(set(scenes)) > 1 else len(scenes)  # what the bootstrap draws
    if units < LEAST_SCENES:
        return "too few scenes"
    low, high = sorted(rank_key(metric, end) for end in (difference.low, difference.high))
    if high < 0:
        return "better"
    return "worse" if low > 0 else "within luck"
