"""Refinement by spatial propagation: each pixel becomes a convex combination of pixels near it, several times over.

H_0 is the depth of a network, S are the samples, m(x) in [0,1] is the confidence of the sample of pixel x (0 where none
is), and n runs over the k*k - 1 neighbours of x. A step from H_t to H_t+1 is

    cspn:  H_t+1(x) = (1 - m(x)) (a_0(x) H_0(x) + sum_n a_n(x) H_t(x + n)) + m(x) S(x)
    nlspn: H_t+1(x) = (1 - m(x)) (a_0(x) H_t(x) + sum_n a_n(x) H_t(x + n + o_n(x))) + m(x) S(x)

cspn is Cheng, Wang and Yang 2018 (arXiv:1808.00150), with m = 1 at all samples there. nlspn is Park et al. 2020
(arXiv:2007.10042): learned offsets o_n move the neighbours, H_t is read between pixels bilinearly, and a_n is
multiplied by the confidence of the neighbour. In both papers a_n may be negative; here (a_0, a_n) is a softmax, so that
no step leaves the range of the depths that there are, and any number of steps is stable.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.batch import Batch
from depthray.models.layers.blocks import shifted, unit_colour, unit_size, upsample

WIDTH = 24  # channels of the guidance
CENTRE = 2.0  # logit of a_0: before training 0.48 of a 3x3 neighbourhood is the pixel itself
CONFIDENT = 2.0  # logit of a confidence before training: 0.88


@dataclass(frozen=True)
class PropagationOptions:
    """How depth is refined; the keys `refine` of a recipe's model section."""

    kind: Literal["cspn", "nlspn"]
    steps: int
    kernel: int  # pixels of a side of a neighbourhood, odd
    samples: Literal["learned", "exact", "free"]  # what m is: predicted, 1, or 0


class Propagation(nn.Module):
    """Depth of full size and features of any size to refined depth; all of it float32 but for the convolutions."""

    def __init__(
        self, options: PropagationOptions, *, channels: int, inputs: tuple[str, ...], max_depth: float
    ) -> None:
        super().__init__()
        self.options = options
        self.max_depth = max_depth
        self.has_image, self.has_samples = "image" in inputs, "sparse" in inputs and options.samples != "free"
        reach = options.kernel // 2
        around = range(-reach, reach + 1)
        self.neighbours = [place for place in product(around, around) if place != (0, 0)]  # rows, columns
        hints = 1 + 3 * self.has_image + self.has_samples  # of full size: depth, colour, where samples are
        self.guidance = nn.Sequential(nn.Conv2d(channels + hints, WIDTH, 3, padding=1), nn.ReLU(inplace=True))
        self.affinity = _convolution(len(self.neighbours), bias=0.0)
        moves = options.kind == "nlspn"
        self.offset = _convolution(2 * len(self.neighbours), bias=0.0) if moves else None
        is_learned = moves or (self.has_samples and options.samples == "learned")
        self.confidence = _convolution(1, bias=CONFIDENT) if is_learned else None
        if self.offset is not None:
            nn.init.zeros_(self.offset.weight)  # as published: training begins with the nearest neighbours

    def forward(self, depth: Tensor, features: Tensor, batch: Batch) -> Tensor:
        """(B,1,H,W) metres, (B,C,h,w) features, inputs of a batch -> (B,1,H,W) metres"""
        guidance = self._guidance(depth, features, batch)
        confidence = None if self.confidence is None else self.confidence(guidance).float().sigmoid()  # (B,1,H,W)
        logits = self.affinity(guidance).float()  # (B,N,H,W)
        centre = torch.full_like(logits[:, :1], CENTRE)
        affinity = torch.cat([centre, logits], dim=1).softmax(dim=1)[:, 1:]
        if self.offset is not None and confidence is not None:
            return self._move_and_mix(depth, affinity, confidence, self.offset(guidance).float(), batch)
        return self._mix(depth, affinity, confidence, batch)

    def _mix(self, depth: Tensor, affinity: Tensor, confidence: Tensor | None, batch: Batch) -> Tensor:
        """cspn: (B,1,H,W) metres, (B,N,H,W) affinities -> (B,1,H,W) metres"""
        kept = (1 - affinity.sum(dim=1, keepdim=True)) * depth
        current = self._merge_samples(depth, confidence, batch)
        for _ in range(self.options.steps):
            around = shifted(current, self.neighbours, reach=self.options.kernel // 2)
            current = self._merge_samples(kept + (affinity * around).sum(dim=1, keepdim=True), confidence, batch)
        return current

    def _move_and_mix(
        self, depth: Tensor, affinity: Tensor, confidence: Tensor, offset: Tensor, batch: Batch
    ) -> Tensor:
        """nlspn: (B,1,H,W) metres and confidence, (B,N,H,W) affinities, (B,2N,H,W) offsets -> (B,1,H,W) metres"""
        grid = _grid(offset, self.neighbours)
        affinity = affinity * _read(confidence, grid)  # less than before, so that their sum stays below 1
        kept = 1 - affinity.sum(dim=1, keepdim=True)
        current = self._merge_samples(depth, confidence, batch)
        for _ in range(self.options.steps):
            mixed = kept * current + (affinity * _read(current, grid)).sum(dim=1, keepdim=True)
            current = self._merge_samples(mixed, confidence, batch)
        return current

    def _merge_samples(self, depth: Tensor, confidence: Tensor | None, batch: Batch) -> Tensor:
        """(B,1,H,W) metres, confidence -> (B,1,H,W) metres with the samples merged"""
        if not self.has_samples:
            return depth
        samples = batch["sparse"].float().clamp(max=self.max_depth)
        if self.options.samples == "exact" or confidence is None:
            return torch.where(samples > 0, samples, depth)
        return torch.where(samples > 0, torch.lerp(depth, samples, confidence), depth)

    def _guidance(self, depth: Tensor, features: Tensor, batch: Batch) -> Tensor:
        """(B,1,H,W) metres, (B,C,h,w) features, inputs -> (B,WIDTH,H,W)"""
        size = (depth.shape[-2], depth.shape[-1])
        parts = [upsample(unit_size(features), size, corners=False), depth / self.max_depth]
        if self.has_image:
            parts.append(unit_colour(batch["image"]))  # edges of full size, which features lack
        if self.has_samples:
            parts.append((batch["sparse"] > 0).to(depth.dtype))
        guidance: Tensor = self.guidance(torch.cat(parts, dim=1))
        return guidance


def _convolution(channels: int, *, bias: float) -> nn.Conv2d:
    convolution = nn.Conv2d(WIDTH, channels, 3, padding=1)
    nn.init.constant_(convolution.bias, bias)  # type: ignore[arg-type]
    return convolution


def _grid(offset: Tensor, places: list[tuple[int, int]]) -> Tensor:
    """(B,2N,H,W) offsets of N places in pixels, rows first -> (B,N*H,W,2) where `_read` finds them"""
    height, width = offset.shape[-2], offset.shape[-1]
    options: Any = {"dtype": offset.dtype, "device": offset.device}
    count = len(places)
    down, across = (torch.tensor([place[axis] for place in places], **options).view(1, count, 1, 1) for axis in (0, 1))
    rows = offset[:, :count] + down + torch.arange(height, **options).view(1, 1, -1, 1)  # (B,N,H,W)
    columns = offset[:, count:] + across + torch.arange(width, **options).view(1, 1, 1, -1)
    # grid_sample counts from -1 to 1 between the outer edges of the outer pixels, x before y.
    pair = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)  # (B,N,H,W,2)
    return pair.flatten(1, 2)


def _read(values: Tensor, grid: Tensor) -> Tensor:
    """(B,1,H,W) values, (B,N*H,W,2) grid -> (B,N,H,W) values there, between pixels bilinearly"""
    read = F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)  # (B,1,N*H,W)
    return read.reshape(values.shape[0], -1, values.shape[-2], values.shape[-1])
