"""Predictors that do not use the image: baselines that any network has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from depthray.batch import Metres
from depthray.data.source import Source
from depthray.evaluation import metrics
from depthray.evaluation.protocols import Protocol, compare

BINS_PER_METRE = 1000  # of the histogram the median is read from


def trivial_scores(
    source: Source, train: Sequence[int], test: Sequence[int], *, protocol: Protocol
) -> dict[str, dict[str, float]]:
    """Metrics on the test frames of "mean map" (training mean of each pixel) and "median" (one depth everywhere)."""
    predictors = fit(source, train, protocol=protocol)
    sums: dict[str, list[Tensor]] = {name: [] for name in predictors}
    for index in test:
        truth = _to_tensor(source.read(index)["depth"])
        for name, predicted in predictors.items():
            compared = compare(_to_tensor(predicted), truth, protocol)
            sums[name].append(metrics.image_sums(compared.prediction, compared.truth, valid=compared.valid))
    return {name: metrics.scores(torch.cat(rows), pooled=protocol.pooled) for name, rows in sums.items()}


def fit(source: Source, train: Sequence[int], *, protocol: Protocol) -> dict[str, Metres]:
    """The trivial predictors' depth maps (H,W) in metres, of the size of the first training frame."""
    size = source.read(train[0])["depth"].shape  # `compare` resizes the maps to each truth
    total, count = np.zeros(size), np.zeros(size)
    # A histogram, since the pixels of a data set do not fit into memory to be sorted.
    histogram = np.zeros(int(protocol.max_depth * BINS_PER_METRE) + 1, np.int64)
    for depth in _valid_depths(source, train, protocol=protocol):
        resized = _resize_nearest(depth, size)
        total += resized
        count += resized > 0  # each pixel by itself: frames have holes in different places
        millimetres = (depth[depth > 0].astype(np.float64) * BINS_PER_METRE).round().astype(np.int64)
        histogram += np.bincount(millimetres, minlength=len(histogram))
    median = np.searchsorted(histogram.cumsum(), histogram.sum() / 2) / BINS_PER_METRE
    # A pixel that no training frame has measured gets the mean of all pixels.
    mean = np.divide(total, count, out=np.full(size, total.sum() / max(count.sum(), 1)), where=count > 0)
    return {"mean map": mean.astype(np.float32), "median": np.full(size, median, np.float32)}


def _valid_depths(source: Source, indices: Sequence[int], *, protocol: Protocol) -> Iterator[Metres]:
    """Training depths (H,W) in metres, 0 outside the protocol's range."""
    for index in indices:
        depth = source.read(index)["depth"]
        yield np.where((depth > protocol.min_depth) & (depth < protocol.max_depth), depth, np.float32(0))


def _resize_nearest(depth: Metres, size: tuple[int, ...]) -> Metres:
    """(h,w) -> (H,W) metres; holes must not be averaged into depths."""
    if depth.shape == size:
        return depth
    return np.asarray(cv2.resize(depth, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.float32)


def _to_tensor(depth: Metres) -> Tensor:
    """(H,W) -> (1,1,H,W)."""
    return torch.from_numpy(depth)[None, None]
