"""Where completion is right: at samples, between them, by the distance to the nearest, and at edges of depth."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from depthray.batch import Batch, Prediction
from depthray.evaluation.alignment import ComparedDepth

# Pixels of the network's size from the nearest sample: above the first, up to the second.
DISTANCES = {"1-2 px": (0.0, 2.0), "3-5 px": (2.0, 5.0), "6-10 px": (5.0, 10.0), ">10 px": (10.0, math.inf)}
REGIONS = ("sampled", "unsampled", *DISTANCES, "edges")
EDGE = 0.1  # of the depth: neighbours of the truth that differ by more are an edge
WIDTH = 2  # pixels of the truth that an edge reaches to either side
SCORES = ("rmse", "abs_rel")


def score_name(metric: str, region: str) -> str:
    """The name of a metric of the pixels of a region."""
    return f"{metric} {region}"


NAMES = tuple(score_name(metric, region) for metric in SCORES for region in REGIONS)


def with_regions(extra: Any) -> Any:
    """What a protocol scores besides the usual metrics (None: nothing), and the scores of regions."""
    return partial(_score, extra)


def region_scores(batch: Batch, depth: ComparedDepth) -> dict[str, Tensor]:
    """A batch with `sparse` (B,1,h,w), its compared depth (B,1,H,W) -> (B,) of each of NAMES; NaN without a pixel"""
    error = (depth.prediction - depth.truth).double()
    share = error.abs() / depth.truth.double().clamp(min=1e-6)
    found: dict[str, Tensor] = {}
    for region, mask in regions(batch["sparse"], depth.truth).items():
        scored = mask & depth.valid
        found[score_name("rmse", region)] = _mean(error.square(), scored).sqrt()
        found[score_name("abs_rel", region)] = _mean(share, scored)
    return {name: found[name] for name in NAMES}


def regions(sparse: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """(B,1,h,w) samples, (B,1,H,W) truth, metres -> (B,1,H,W) bool by name of REGIONS.

    The truth's pixels of a sample are all that its pixel covers.
    """
    distance = distances(sparse)
    if distance.shape[-2:] != truth.shape[-2:]:
        distance = torch.nn.functional.interpolate(distance, size=truth.shape[-2:], mode="nearest-exact")
    masks = {"sampled": distance == 0, "unsampled": distance > 0}
    masks |= {name: (distance > low) & (distance <= high) for name, (low, high) in DISTANCES.items()}
    return {**masks, "edges": edges(truth)}


def distances(sparse: Tensor) -> Tensor:
    """(B,1,h,w) samples -> (B,1,h,w) pixels to the nearest one; infinity in an image without"""
    empty = (sparse == 0).to(torch.uint8).cpu().numpy()
    maps = [
        cv2.distanceTransform(frame, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        if not frame.all()
        else np.full_like(frame, np.inf, dtype=np.float32)
        for frame in empty[:, 0]
    ]
    return torch.from_numpy(np.stack(maps)[:, None]).to(sparse.device)


def edges(truth: Tensor) -> Tensor:
    """(B,1,H,W) metres, 0 = unmeasured -> (B,1,H,W) bool, near a step between measured neighbours"""
    step = torch.zeros_like(truth, dtype=torch.bool)
    for axis in (-1, -2):
        size = truth.shape[axis] - 1
        one, other = truth.narrow(axis, 0, size), truth.narrow(axis, 1, size)
        near = torch.minimum(one, other)
        jumps = (near > 0) & ((one - other).abs() > EDGE * near)
        step.narrow(axis, 0, size).logical_or_(jumps)
        step.narrow(axis, 1, size).logical_or_(jumps)
    side = 2 * WIDTH - 1
    return torch.nn.functional.max_pool2d(step.float(), side, stride=1, padding=WIDTH - 1) > 0


def _score(extra: Any, prediction: Prediction, batch: Batch, depth: ComparedDepth | None) -> dict[str, Tensor]:
    scores: dict[str, Tensor] = extra(prediction, batch, depth) if extra else {}
    return scores | (region_scores(batch, depth) if depth is not None else {})


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B,1,H,W) values and bool -> (B,) means; NaN without a pixel"""
    total = values.where(mask, 0.0).sum(dim=(1, 2, 3))
    return total / mask.sum(dim=(1, 2, 3))
