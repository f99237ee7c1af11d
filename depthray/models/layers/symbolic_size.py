"""What layers do where the height and width are symbols: `torch.export` traces one graph for all sizes.

A loop whose length depends on the size, or an operator that is another one at size 1, would leave a graph of one size.
Here are formulas that give the same maps, to rounding, for any size. Ordinary passes do not use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SIDE = 4096  # pixels, of a sparse map
SMALL = 128  # pixels: from this size on the maps of a pyramid have one size in a graph, which is traced in a moment
CUBIC, CUBIC_ANTIALIAS = -0.75, -0.5  # torch's constants of bicubic interpolation


@dataclass(frozen=True)
class _Trace:
    """What is known while a graph is traced."""

    largest_side: int  # pixels
    filled: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # id -> sparse map, filled map


_TRACE: ContextVar[_Trace] = ContextVar("_TRACE")


@contextmanager
def tracing(largest_side: int) -> Iterator[None]:
    """While a graph for sides of up to so many pixels is traced: it has as many levels of filling as those need.

    A map that a network fills twice, as an input and to start from, is filled once: these are most of a graph's nodes.
    """
    token = _TRACE.set(_Trace(min(largest_side, MAX_SIDE)))
    try:
        yield
    finally:
        _TRACE.reset(token)


def fill_sparse(sparse: Tensor, *, pixels: int = 1) -> Tensor:
    """(B,1,H,W) metres, 0 where not sampled -> (B,1,H,W) metres everywhere; as `inputs.fill_sparse`."""
    trace = _TRACE.get(None) or _Trace(MAX_SIDE)
    if id(sparse) not in trace.filled:  # with the map itself, so that nothing else gets its id
        trace.filled[id(sparse)] = sparse, _fill(sparse, -(-trace.largest_side // pixels))
    return trace.filled[id(sparse)][1]


def _fill(sparse: Tensor, largest_side: int) -> Tensor:
    """(B,1,H,W) of sides up to so many pixels -> (B,1,H,W) by halvings until it is one pixel, and back"""
    height, width = sparse.shape[-2], sparse.shape[-1]
    levels = (largest_side - 1).bit_length()
    free = max(1, levels - (SMALL - 1).bit_length())  # levels whose sizes are those of the frame
    block = 2**free
    # A block of zeros more than needed: a side is then a multiple of the block, and never 1, which tracing sets apart.
    rows, columns = height // block + 1, width // block + 1
    maps = [sparse, _halve(F.pad(sparse, (0, block * columns - width, 0, block * rows - height)))]
    for _ in range(1, free):
        maps.append(_halve(maps[-1]))
    most = largest_side // block + 2  # more than there are, or tracing would set that size apart
    maps[-1] = F.pad(maps[-1], (0, most - columns, 0, most - rows))
    for _ in range(free, levels):
        maps.append(_halve(F.pad(maps[-1], (0, maps[-1].shape[-1] % 2, 0, maps[-1].shape[-2] % 2))))
    scales, ends = _scales((height, width), levels, like=sparse)
    small = _stretch_matrix(most, most, scales[:, free:], ends[:, free:])  # (2,levels,h,w), all at once
    full = maps[-1][:, 0]  # (B,h,w)
    for level in range(levels - 1, -1, -1):
        known, above = maps[level][:, 0], full if level != free - 1 else full[:, :rows, :columns]
        by_rows, by_columns = (
            small[axis, level - free, : known.shape[1 + axis], : above.shape[1 + axis]]
            if level >= free
            else _stretch_matrix(known.shape[1 + axis], above.shape[1 + axis], scales[axis, level], ends[axis, level])
            for axis in (0, 1)
        )
        full = torch.where(known > 0, known, _multiply(by_rows, above, by_columns))
    return full[:, None]


def same_size(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are equal; in a trace whatever the inputs' size, as a comparison would set some sizes apart."""
    if not torch.compiler.is_exporting():
        return one == other
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to import

    return all(statically_known_true(side == length) for side, length in zip(one, other, strict=True))


def adaptive_mean(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,1,H,W) -> (B,1,h,w) means, as `F.adaptive_avg_pool2d`."""
    sides = values.shape[-2], values.shape[-1]
    if same_size(sides, size):
        return values
    rows, columns = (_mean_matrix(side, parts, values) for side, parts in zip(sides, size, strict=True))
    return _multiply(rows, values[:, 0], columns)[:, None]


def local_mean(values: Tensor, parts: int) -> Tensor:
    """(B,1,H,W) -> (B,1,H,W) means over squares around each pixel, a part of the shorter side across"""
    height, width = values.shape[-2], values.shape[-1]
    # A value of the graph, since the smaller of two symbols would set some sizes apart.
    sides = [torch.full((1,), side, dtype=values.dtype, device=values.device) for side in (height, width)]
    reach = (torch.minimum(*sides) / (2 * parts)).floor()
    rows, columns = (_near_matrix(side, reach, values) for side in (height, width))
    return _multiply(rows, values[:, 0], columns)[:, None]


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


def _halve(values: Tensor) -> Tensor:
    """(B,1,2h,2w) metres -> (B,1,h,w) means of what is known"""
    total, count = F.avg_pool2d(values, 2), F.avg_pool2d(values.sign(), 2)
    return total / count.clamp(min=0.25)


def _scales(size: tuple[int, int], levels: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """-> (2,levels,1) pixels of the level above for one of a level, and (2,levels,1) its last pixel centre there"""
    # As values of the graph, since the sizes of its maps include what is idle.
    blocks = 2.0 ** torch.arange(levels + 1, dtype=like.dtype, device=like.device)
    sides = torch.stack([torch.full((1,), side, dtype=like.dtype, device=like.device) for side in size])  # (2,1)
    counts = ((sides + blocks - 1) / blocks).floor()[..., None]  # (2,levels+1,1)
    return counts[:, 1:] / counts[:, :-1], counts[:, 1:] - 0.5


def _stretch_matrix(fine: int, coarse: int, scale: Tensor, end: Tensor) -> Tensor:
    """(...,1) of `_scales` -> (...,fine,coarse) weights of linear interpolation between pixel centres"""
    fine_centres, coarse_centres = (
        torch.arange(size, dtype=scale.dtype, device=scale.device) + 0.5 for size in (fine, coarse)
    )
    position = torch.minimum(fine_centres * scale, end).clamp(min=0.5)
    return (1 - (position[..., None] - coarse_centres).abs()).clamp(min=0)


def _multiply(rows: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    """(H,h) weights, (B,h,w), (W,w) weights -> (B,H,W)"""
    batch = values.shape[0]
    stretched = torch.bmm(rows.expand(batch, -1, -1), values)
    return torch.bmm(stretched, columns.mT.expand(batch, -1, -1))


def _mean_matrix(side: int, parts: int, like: Tensor) -> Tensor:
    """-> (h,H): row i has the mean over pixels floor(i * H / h) to ceil((i + 1) * H / h)"""
    part = torch.arange(parts, device=like.device)[:, None]  # (h,1)
    pixel = torch.arange(side, device=like.device)  # (H,)
    # In whole numbers: pixel >= floor(part * H / h) is (pixel + 1) * h > part * H.
    inside = ((pixel + 1) * parts > part * side) & (pixel * parts < (part + 1) * side)
    weights = inside.to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)


def _near_matrix(side: int, reach: Tensor, like: Tensor) -> Tensor:
    """-> (H,H): row i has the mean over the pixels that are at most `reach` (1,) away"""
    pixel = torch.arange(side, dtype=like.dtype, device=like.device)
    weights = ((pixel[:, None] - pixel).abs() <= reach).to(like.dtype)
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
