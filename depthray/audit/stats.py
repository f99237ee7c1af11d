"""Statistics of a data set, and the scores of predictors that never see the image, which any model has to beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from depthray.config.sections import Data
from depthray.data.columns.selection import Selection
from depthray.data.shards.format import to_millimetres
from depthray.data.source import Source
from depthray.data.split import Split, split
from depthray.errors import DataError
from depthray.evaluation import protocols
from depthray.evaluation.baselines import trivial_scores
from depthray.evaluation.metrics import METRICS

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 65536  # one a millimetre


class Stats(NamedTuple):
    """Counts, sizes and depths of a data set, and the scores of the trivial predictors."""

    frames: int
    scenes: int
    sides: dict[str, int]
    sources: dict[str, int]
    sizes: dict[str, int]  # "320x240": frames
    keys: list[str]
    valid_share: float
    depth_percentiles: dict[str, float]  # metres
    trivial: dict[str, dict[str, float]]  # scores on the validation frames, by predictor
    remark: str  # why there are no scores


def collect_stats(source: Source, section: Data, *, protocol: str, advance: Callable[[], None] = lambda: None) -> Stats:
    """Count all frames; score the trivial predictors, fitted on the training side, on the validation side."""
    chosen = protocols.named(protocol)
    tally = _Tally(section)
    for index in range(len(source.frames)):
        tally.add(source.read(index)["depth"])
        advance()
    sides, remark = _try_split(source, section)
    return Stats(
        frames=len(source.frames),
        scenes=len({frame.scene for frame in source.frames}),
        sides={name: len(indices) for name, indices in sides._asdict().items()},
        sources=dict(Counter(frame.source for frame in source.frames)),
        sizes=dict(tally.sizes),
        keys=sorted(source.keys),
        valid_share=tally.counts.sum() / max(tally.pixels, 1),
        depth_percentiles={f"p{share}": quantile(tally.counts, share / 100) for share in PERCENTILES},
        # A protocol with scores of its own alone has none of METRICS, which the table shows.
        trivial=trivial_scores(source, sides.train, sides.val, protocol=chosen) if sides.val and chosen.usual else {},
        remark=remark,
    )


def quantile(counts: NDArray[np.int64], share: float) -> float:
    """Pixels by millimetre -> the depth in metres that a share of them does not exceed; 0 without pixels."""
    if not counts.any():
        return 0.0
    ends = np.cumsum(counts)
    return float(np.searchsorted(ends, share * ends[-1])) / 1000  # bins are millimetres


def stats_tables(stats: Stats) -> list[Table]:
    """The statistics, and where there are any the scores, as tables to print."""
    facts = Table("what", title="data stats")
    facts.add_column("value", overflow="fold")
    for name, value in stats._asdict().items():
        if name != "trivial" and value not in ("", None):
            facts.add_row(name.replace("_", " "), _format(value))
    if not stats.trivial:
        return [facts]
    # A line for each metric: a column for each would not fit on a terminal.
    scores = Table("metric", *stats.trivial, title="to be beaten, on the validation frames")
    for metric in METRICS:
        scores.add_row(metric, *(f"{values[metric]:.4f}" for values in stats.trivial.values()))
    return [facts, scores]


class _Tally:
    """A histogram of valid depth in millimetres: exact percentiles in one pass, whatever the number of pixels."""

    def __init__(self, section: Data) -> None:
        self._limits = (section.min_depth, section.max_depth)
        self.counts = np.zeros(BINS, np.int64)
        self.pixels = 0
        self.sizes: Counter[str] = Counter()

    def add(self, depth: NDArray[np.float32]) -> None:
        """Add the (H,W) metres of a frame."""
        valid = depth[(depth > self._limits[0]) & (depth < self._limits[1])]
        # 65,536 bins of a millimetre hold all that shards can store.
        self.counts += np.bincount(to_millimetres(valid), minlength=BINS)
        self.pixels += depth.size
        self.sizes[f"{depth.shape[1]}x{depth.shape[0]}"] += 1


def _try_split(source: Source, section: Data) -> tuple[Split, str]:
    """The split and ""; where there is none, all frames to train on and why there are no scores."""
    try:
        return split(source.frames, section), ""
    except DataError as error:
        none = Selection.all(0)
        return Split(Selection.all(len(source.frames)), none, none), f"no scores of trivial predictors: {error}"


def _format(value: Any) -> str:
    """A field of the statistics as the text of a table's cell"""
    if isinstance(value, dict):
        return ", ".join(f"{key or '(none)'} {_format(each)}" for key, each in value.items())
    return ", ".join(value) if isinstance(value, list) else f"{value:.4g}" if isinstance(value, float) else str(value)
