"""What layers do where the height and width are symbols: `torch.export` traces one graph for all sizes.

A loop whose length depends on the size, or an operator that is another one at size 1, would leave a graph of one size.
Here are formulas that give the same maps, to rounding, for any size. Ordinary passes do not use them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 12  # halvings of a sparse map
MAX_SIDE = 2**LEVELS  # pixels: of a larger map, samples would not reach every pixel
CUBIC, CUBIC_ANTIALIAS = -0.75, -0.5  # torch's constants of bicubic interpolation


def fill_sparse(sparse: Tensor) -> Tensor:
    """(B,1,H,W) metres, 0 where not sampled -> (B,1,H,W) metres everywhere; as `inputs.fill_sparse`."""
    height, width = sparse.shape[-2], sparse.shape[-1]
    sizes = [(_halvings(height, level), _halvings(width, level)) for level in range(LEVELS + 1)]
    # Each map has a row and a column of zeros more, so that none ever has the side 1, which tracing sets apart.
    maps = [F.pad(sparse, (0, 1, 0, 1))]  # (B,1,H+1,W+1), (B,1,H/2+1,W/2+1) ... (B,1,2,2)
    for rows, columns in sizes[1:]:
        known = (maps[-1] > 0).to(sparse.dtype)
        total, count = (_pool(values, (rows + 1, columns + 1)) for values in (maps[-1], known))
        maps.append(torch.where(count > 0, total / count.clamp(min=0.25), 0.0))
    full = maps.pop()
    for level in range(LEVELS - 1, -1, -1):
        for axis, fine, coarse in zip((-2, -1), sizes[level], sizes[level + 1], strict=True):
            full = _stretch(full, axis, coarse=coarse, fine=fine)
        full = torch.where(maps[level] > 0, maps[level], full)
    return full[..., :height, :width]


def adaptive_mean(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,C,H,W) -> (B,C,h,w) means, as `F.adaptive_avg_pool2d`."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to import

    for axis, side in zip((-1, -2), reversed(size), strict=True):
        if not statically_known_true(values.shape[axis] == side):
            means = _mean_matrix(values.shape[axis], side, values)  # (h,H)
            values = values @ means.T if axis == -1 else means @ values
    return values


def resize_positions(square: Tensor, size: tuple[int, int], *, offset: float, antialias: bool) -> Tensor:
    """(1,C,g,g) positions -> (1,C,h,w), bicubic; those of the stored size as they are.

    The scale is (h + offset) / g; with antialias h / g.
    """
    grid = square.shape[-1]
    sides = [torch.full((1,), side, dtype=square.dtype, device=square.device) for side in size]
    is_stored = (sides[0] == grid) & (sides[1] == grid)  # a value of the graph: a branch would be one of its two sides
    matrices = []
    for side, count in zip(sides, size, strict=True):
        steps = torch.arange(count, dtype=square.dtype, device=square.device)[:, None] + 0.5  # (h,1)
        if antialias:
            matrices.append(_antialiased_cubic(steps, grid / side, grid))
        else:
            scale = torch.where(is_stored, 1.0, grid / (side + offset))
            matrices.append(_cubic(steps * scale - 0.5, grid))
    return matrices[0] @ square @ matrices[1].T


def _halvings(side: int, count: int) -> int:
    """The side of a map after some halvings that round up."""
    # In one division: of nested ones torch cannot prove that two sizes are equal.
    block: int = 2**count
    return (side + block - 1) // block


def _pool(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,1,H,W) -> (B,1,h,w) means of blocks of 2x2, with zeros beyond the edge"""
    padded = F.pad(values, (0, 2 * size[1] - values.shape[-1], 0, 2 * size[0] - values.shape[-2]))
    return F.avg_pool2d(padded, 2)


def _stretch(values: Tensor, axis: int, *, coarse: int, fine: int) -> Tensor:
    """The first `coarse` rows or columns -> fine + 1 by linear interpolation between pixel centres, the last idle"""
    steps = torch.arange(fine + 1, dtype=values.dtype, device=values.device)
    position = ((steps + 0.5) * (coarse / fine) - 0.5).clamp(min=0)
    last = torch.full_like(position, coarse - 1)
    low = torch.minimum(position.floor(), last)
    high = torch.minimum(low + 1, last)
    share = position - low if axis == -1 else (position - low)[:, None]
    first, second = (values.index_select(axis, index.long()) for index in (low, high))
    return torch.lerp(first, second, share)


def _mean_matrix(side: int, parts: int, like: Tensor) -> Tensor:
    """-> (h,H): row i has the mean over pixels floor(i * H / h) to ceil((i + 1) * H / h)"""
    part = torch.arange(parts, device=like.device)[:, None]  # (h,1)
    pixel = torch.arange(side, device=like.device)  # (H,)
    # In whole numbers: pixel >= floor(part * H / h) is (pixel + 1) * h > part * H.
    inside = ((pixel + 1) * parts > part * side) & (pixel * parts < (part + 1) * side)
    weights = inside.to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)


def _cubic(position: Tensor, grid: int) -> Tensor:
    """(h,1) positions -> (h,g) weights of bicubic interpolation, what is beyond an edge counted for the edge"""
    first, cells = position.floor(), torch.arange(grid, dtype=position.dtype, device=position.device)
    weights = torch.zeros_like(position * cells)  # (h,g)
    for tap in (-1, 0, 1, 2):
        cell = (first + tap).clamp(0, grid - 1)
        weights = weights + torch.where(cells == cell, _kernel(position - first - tap, CUBIC), 0.0)
    return weights


def _antialiased_cubic(steps: Tensor, scale: Tensor, grid: int) -> Tensor:
    """(h,1) pixel centres and (1,) grid cells a pixel -> (h,g) weights of bicubic interpolation with antialias"""
    widened = scale.clamp(min=1.0)
    cells = torch.arange(grid, dtype=steps.dtype, device=steps.device) + 0.5  # (g,)
    weights = _kernel((cells - steps * scale) / widened, CUBIC_ANTIALIAS)  # 0 beyond two cells
    return weights / weights.sum(dim=1, keepdim=True)


def _kernel(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic kernel."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
