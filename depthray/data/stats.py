"""What a data set holds, and how far one gets without looking at the image: the scores any model has to beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from depthray import metrics, protocols
from depthray.data.shards import millimetres
from depthray.data.sources import Source
from depthray.data.split import Split, split
from depthray.errors import DataError
from depthray.recipe import Data

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 65536  # one a millimetre


class Trivial(NamedTuple):
    """The two predictors that know only the training depths."""

    median: float  # metres, over all valid training pixels
    mean_map: NDArray[np.float32]  # (H,W) metres; the median where no training frame has a valid pixel


class Stats(NamedTuple):
    """What a data set holds."""

    frames: int
    scenes: int
    sides: dict[str, int]
    sources: dict[str, int]
    sizes: dict[str, int]  # "320x240": frames
    keys: list[str]
    valid_share: float
    depth_percentiles: dict[str, float]  # metres
    median: float | None  # metres; of the training frames
    trivial: dict[str, dict[str, float]]  # scores on the validation frames, by predictor
    remark: str  # why there are no scores


def stats(source: Source, section: Data, *, protocol: str, advance: Callable[[], None] = lambda: None) -> Stats:
    """Count all frames; fit the trivial predictors on the training side and score them on the validation side."""
    tally = _Tally(section)
    for index, frame in enumerate(source.frames):
        tally.add(source.read(index)["depth"])
        advance()
    sides, remark = _try_split(source, section)
    trivial = fit(source, sides.train, section) if sides.val else None
    return Stats(
        frames=len(source.frames),
        scenes=len({frame.scene for frame in source.frames}),
        sides={name: len(indices) for name, indices in sides._asdict().items()},
        sources=dict(Counter(frame.source for frame in source.frames)),
        sizes=dict(tally.sizes),
        keys=sorted(source.keys),
        valid_share=tally.counts.sum() / max(tally.pixels, 1),
        depth_percentiles={f"p{share}": quantile(tally.counts, share / 100) for share in PERCENTILES},
        median=trivial.median if trivial else None,
        trivial=score(trivial, source, sides.val, protocol=protocol) if trivial else {},
        remark=remark,
    )


def fit(source: Source, indices: Sequence[int], section: Data) -> Trivial:
    """Global median and mean map of the valid depths of some frames, at the size of the first."""
    tally = _Tally(section)
    size = source.read(indices[0])["depth"].shape
    total, count = np.zeros(size), np.zeros(size)
    for index in indices:
        depth = _nearest(source.read(index)["depth"], size)
        valid = tally.add(depth)
        total += np.where(valid, depth, 0)
        count += valid
    median = quantile(tally.counts, 0.5)
    mean = np.divide(total, count, out=np.full(size, median), where=count > 0)
    return Trivial(median, mean.astype(np.float32))


def score(trivial: Trivial, source: Source, indices: Sequence[int], *, protocol: str) -> dict[str, dict[str, float]]:
    """Scores of the two predictors on some frames."""
    maps = {"mean map": trivial.mean_map, "global median": np.full((1, 1), trivial.median, np.float32)}
    sums: dict[str, list[torch.Tensor]] = {name: [] for name in maps}
    for index in indices:
        truth = torch.from_numpy(source.read(index)["depth"])[None, None]
        for name, depth in maps.items():
            guess, valid = protocols.apply(torch.from_numpy(depth)[None, None], truth, protocols.PROTOCOLS[protocol])
            sums[name].append(metrics.image_sums(guess, truth, valid=valid))
    return {name: metrics.scores(torch.cat(rows)) for name, rows in sums.items()}


def quantile(counts: NDArray[np.int64], share: float) -> float:
    """Pixels by millimetre -> the depth in metres below or at which a share of them lies; 0 without pixels."""
    if not counts.any():
        return 0.0
    ends = np.cumsum(counts)
    return float(np.searchsorted(ends, share * ends[-1])) / 1000


def tables(found: Stats) -> list[Table]:
    """What was found, for people."""
    facts = Table("what", "value", title="data stats")
    for name, value in found._asdict().items():
        if name != "trivial" and value not in ("", None):
            facts.add_row(name.replace("_", " "), _words(value))
    if not found.trivial:
        return [facts]
    scores = Table("predictor", *metrics.METRICS, title="to be beaten, on the validation frames")
    for name, values in found.trivial.items():
        scores.add_row(name, *(f"{values[metric]:.4f}" for metric in metrics.METRICS))
    return [facts, scores]


class _Tally:
    """Valid pixels by millimetre."""

    def __init__(self, section: Data) -> None:
        self._limits = (section.min_depth, section.max_depth)
        self.counts = np.zeros(BINS, np.int64)
        self.pixels = 0
        self.sizes: Counter[str] = Counter()

    def add(self, depth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(H,W) metres -> (H,W) bool, which of them are valid."""
        valid: NDArray[np.bool_] = (depth > self._limits[0]) & (depth < self._limits[1])
        self.counts += np.bincount(millimetres(depth[valid]), minlength=BINS)
        self.pixels += depth.size
        self.sizes[f"{depth.shape[1]}x{depth.shape[0]}"] += 1
        return valid


def _nearest(depth: NDArray[np.float32], size: Any) -> NDArray[np.float32]:
    """(h,w) metres -> (H,W) metres, no new values."""
    if depth.shape == size:
        return depth
    return cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.float32, copy=False)


def _try_split(source: Source, section: Data) -> tuple[Split, str]:
    try:
        return split(source.frames, section), ""
    except DataError as error:
        return Split(list(range(len(source.frames))), [], []), f"no scores of trivial predictors: {error}"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key or '(none)'} {_words(each)}" for key, each in value.items())
    return ", ".join(value) if isinstance(value, list) else f"{value:.4g}" if isinstance(value, float) else str(value)
