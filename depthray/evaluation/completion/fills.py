"""Fills of sparse depth that learn nothing, as networks: the baselines that a completion network has to beat."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.models.layers.inputs import fill_sparse

COLOUR = 0.1  # of full scale: colours that differ so much have exp(-1/2) of the weight of equal ones
REACH = 1  # cells of the coarser map around a pixel's own that count
LEAST = 1e-6  # weight of a cell whatever its colour, so that each pixel has some depth


class SpreadSamples(nn.Module):
    """Predicts the samples, interpolated between them."""

    inputs = ("sparse",)
    stride = 1  # blocks that reach beyond the map are averaged over their part inside

    def forward(self, batch: Batch) -> Prediction:
        """(B,1,H,W) sparse depth -> (B,1,H,W) depth, metres"""
        return {"depth": fill_sparse(batch["sparse"])}


class JointBilateralFill(nn.Module):
    """Predicts the samples, interpolated between them along the colours of the image.

    Joint bilateral upsampling (Kopf et al. 2007) over a pyramid: samples are averaged over blocks of 2, 4, 8 ...
    pixels, and from the coarsest map back each pixel without a sample takes the mean of the 3x3 coarser cells around
    it, weighed by their distance and by the difference of colour.
    """

    inputs = ("image", "sparse")
    stride = 1

    def forward(self, batch: Batch) -> Prediction:
        """(B,3,H,W) image in [0,1], (B,1,H,W) sparse depth -> (B,1,H,W) depth, metres"""
        depths, colours = [batch["sparse"]], [batch["image"]]
        while max(depths[-1].shape[-2:]) > 1:
            depth, colour = _halve(depths[-1], colours[-1])
            depths.append(depth)
            colours.append(colour)
        full = depths.pop()
        coarse = colours.pop()
        for depth, colour in zip(reversed(depths), reversed(colours), strict=True):
            full = torch.where(depth > 0, depth, _raise(full, coarse, colour))
            coarse = colour
        return {"depth": full}


def _halve(depth: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """(B,1,H,W) metres or 0, (B,3,H,W) colour -> means of blocks of 2x2, of depth over what is known"""
    known = (depth > 0).to(depth.dtype)
    total, count = (F.avg_pool2d(values, 2, ceil_mode=True) for values in (depth, known))
    # The colour of the samples where there are some: it is their surface that the depth is of.
    chosen = F.avg_pool2d(colour * known, 2, ceil_mode=True) / count.clamp(min=0.25)
    mean = F.avg_pool2d(colour, 2, ceil_mode=True)
    return torch.where(count > 0, total / count.clamp(min=0.25), 0.0), torch.where(count > 0, chosen, mean)


def _raise(depth: Tensor, coarse: Tensor, colour: Tensor) -> Tensor:
    """(B,1,h,w) metres and (B,3,h,w) colour of cells, (B,3,H,W) colour -> (B,1,H,W) metres; 0 where no cell has any"""
    height, width = colour.shape[-2:]
    total, weights = torch.zeros_like(colour[:, :1]), torch.zeros_like(colour[:, :1])
    side = 2 * REACH + 1
    cells = F.unfold(F.pad(torch.cat([depth, coarse], dim=1), (REACH,) * 4), side)  # (B,4*9,h*w)
    cells = cells.view(len(depth), 4, side * side, *depth.shape[-2:])
    rows, columns = (_own_cell(length, colour) for length in (height, width))
    for index in range(side * side):
        cell = cells[:, :, index].index_select(-2, rows).index_select(-1, columns)  # (B,4,H,W)
        near, shade = cell[:, :1], cell[:, 1:]
        weight = torch.exp(-((shade - colour) ** 2).sum(dim=1, keepdim=True) / (2 * COLOUR**2)) + LEAST
        place = _closeness(index // side - REACH, height, colour)[:, None] * _closeness(
            index % side - REACH, width, colour
        )
        weight = weight * place * (near > 0)
        total, weights = total + weight * near, weights + weight
    return torch.where(weights > 0, total / weights.clamp(min=1e-12), 0.0)


def _own_cell(length: int, like: Tensor) -> Tensor:
    """-> (H) the coarser cell of each pixel"""
    return torch.arange(length, device=like.device) // 2


def _closeness(offset: int, length: int, like: Tensor) -> Tensor:
    """-> (H) Gaussian weight, of half a cell, of the cell at an offset from a pixel's own"""
    place = (torch.arange(length, device=like.device) % 2) / 2 - 0.25  # of cells, from the middle of its own
    return torch.exp(-2 * (offset - place) ** 2)
