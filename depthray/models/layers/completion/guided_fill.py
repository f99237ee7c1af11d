"""Samples spread over a map by what a network sees: which of the coarser samples a pixel takes is predicted.

v_0 are the samples (metres over the shape that a network predicts, see depth_head.py) and w_0 their weights, 0 where
none is. Both are averaged over blocks of 2, 4, 8 ... pixels, v_l+1 weighted by w_l; from LEVELS on the map is filled
without being guided (`inputs.fill_sparse`). Back to the full size, with p(x) the block of a pixel x and n over it and
its 8 neighbours,

    f_l(x) = (1 - g_l(x)) sum_n a_l,n(x) f_l+1(p(x) + n) + g_l(x) v_l(x)

where a_l is a softmax and g_l in [0,1] is 0 where the block x has no sample. So no value leaves the range of the
samples, edges that the network sees are kept at every size of block, and it costs as much for 5 samples as for 5000.
Convex upsampling by a softmax over 3x3 coarse neighbours is that of RAFT (Teed and Deng 2020, arXiv:2003.12039),
weighted averages over a pyramid and back are the pull-push of Gortler et al. 1996 (SIGGRAPH, The Lumigraph).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.batch import Batch
from depthray.models.layers import symbolic_size
from depthray.models.layers.blocks import shifted, unit_colour, unit_size, upsample
from depthray.models.layers.inputs import fill_sparse

LEVELS = 4  # whose maps are filled as is predicted: the coarsest of them has blocks of 8 pixels
BLOCK = 2**LEVELS
WIDTH = 32  # channels of the guidance
KEPT = 3.0  # logit of g before training: 0.95
TRUSTED = 2.0  # logit of a sample's weight before training: 0.88
LOWEST = 0.01  # weight of a sample
LINE = ((0.25, 0.75, 0.0), (0.0, 0.75, 0.25))  # what both pixels of a block of 2 take of three blocks, bilinearly
OPEN = 0.005  # added to the 9 products of LINE: a neighbour of no share could not win one
LEAST = 1e-9  # of the mean weight of a block: 0 where nothing is known
BLOCKS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]


class GuidedFill(nn.Module):
    """Samples to a map of full size; before training nearly as `fill_sparse` does. All of it float32."""

    def __init__(self, channels: int, *, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.has_image = "image" in inputs
        hints = 4 * (2 + 3 * self.has_image)  # of the 4 pixels of a block: shape, whether there is a sample, colour
        self.guidance = nn.Sequential(nn.Conv2d(channels + hints, WIDTH, 3, padding=1), nn.ReLU(inplace=True))
        # For each of the 4 pixels of a block 9 logits of a and one of g.
        self.mix = nn.ModuleList(nn.Conv2d(WIDTH, 4 * 10, 3, padding=1) for _ in range(LEVELS))
        self.trust = nn.Conv2d(WIDTH, 4, 3, padding=1)
        bias = torch.cat([_bilinear_logits().flatten(), torch.full((4,), KEPT)])
        for layer, start in (*((each, bias) for each in self.mix), (self.trust, torch.full((4,), TRUSTED))):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            layer.bias.data.copy_(start)  # type: ignore[operator]

    def forward(self, samples: Tensor, shape: Tensor, features: Tensor, batch: Batch) -> Tensor:
        """(B,1,H,W) values above 0 at samples, else 0, shape of ln depth (B,1,H,W), features (B,C,h,w), inputs

        -> (B,1,H,W) values; 0 for an image without samples.
        """
        height, width = samples.shape[-2], samples.shape[-1]
        whole = (height + BLOCK - 1) // BLOCK * BLOCK, (width + BLOCK - 1) // BLOCK * BLOCK
        values = _resize(samples, whole, zeros=True)  # beyond the edge is what is at the edge, but no sample
        guide = self._guidance(values, _resize(shape, whole), features, batch)
        known = (values > 0).to(values.dtype)
        weights = known * (LOWEST + (1 - LOWEST) * F.pixel_shuffle(self.trust(guide).float().sigmoid(), 2))
        maps: list[Tensor] = []
        guides: list[Tensor] = []
        for level in range(LEVELS):
            maps.append(values)
            guides.append(F.avg_pool2d(guides[-1], 2) if level else guide)
            values, weights = _halve(values, weights)
        filled = fill_sparse(values, pixels=BLOCK)
        for level in reversed(range(LEVELS)):
            filled = self._refine(filled, maps[level], self.mix[level](guides[level]).float())
        return _resize(filled, (height, width))

    def _guidance(self, samples: Tensor, shape: Tensor, features: Tensor, batch: Batch) -> Tensor:
        """(B,1,H,W) samples and shape in whole blocks, features (B,C,h,w), inputs -> (B,WIDTH,H/2,W/2)"""
        whole = samples.shape[-2], samples.shape[-1]
        size = batch["sparse"].shape[-2], batch["sparse"].shape[-1]
        parts = [shape, (samples > 0).to(shape.dtype)]
        if self.has_image:
            parts.append(_resize(unit_colour(batch["image"]), whole))
        resized = upsample(unit_size(features), ((size[0] + 1) // 2, (size[1] + 1) // 2), corners=False)
        blocks = F.pixel_unshuffle(torch.cat(parts, dim=1), 2)
        hints = torch.cat([_resize(resized, (whole[0] // 2, whole[1] // 2)), blocks], dim=1)
        guidance: Tensor = self.guidance(hints)
        return guidance

    def _refine(self, coarse: Tensor, own: Tensor, logits: Tensor) -> Tensor:
        """(B,1,h,w) filled, (B,1,2h,2w) values of this level or 0, (B,40,h,w) -> (B,1,2h,2w) filled"""
        around = shifted(coarse, BLOCKS, reach=1)[:, :, None]  # (B,9,1,h,w)
        shares = logits[:, :36].reshape(-1, 9, 4, *coarse.shape[2:]).softmax(dim=1)
        taken = (shares * around).sum(dim=1)  # (B,4,h,w)
        pixels = F.pixel_shuffle(torch.cat([taken, logits[:, 36:]], dim=1), 2)  # (B,2,2h,2w)
        kept = pixels[:, 1:].sigmoid() * (own > 0).to(own.dtype)
        return torch.lerp(pixels[:, :1], own, kept)


def _bilinear_logits() -> Tensor:
    """-> (9,4) logits of the neighbours of a block, rows first, for each of its 4 pixels"""
    lines = torch.tensor(LINE)  # (2,3)
    shares = torch.einsum("yi,xj->ijyx", lines, lines)  # (3,3,2,2)
    return (shares.reshape(9, 4) + OPEN).log()


def _halve(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(B,1,2h,2w) values and weights, 0 where nothing is known -> (B,1,h,w) means of both, of values weighted"""
    total, weight = F.avg_pool2d(values * weights, 2), F.avg_pool2d(weights, 2)
    return total / weight.clamp(min=LEAST), weight


def _resize(values: Tensor, size: tuple[int, int], *, zeros: bool = False) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W): cut, or the last row and column again, or zeros, up to the size"""
    given = values.shape[-2], values.shape[-1]
    if symbolic_size.same_size(given, size):
        return values
    # By index, of which any size can be traced: slices and padding would set those apart where nothing is to be done.
    for axis, (before, after) in zip((-2, -1), zip(given, size, strict=True), strict=True):
        place = torch.arange(after, device=values.device)
        values = values.index_select(axis, place.clamp(max=before - 1))
        if zeros:
            inside = (place < before).to(values.dtype)
            values = values * (inside[:, None] if axis == -2 else inside)
    return values
