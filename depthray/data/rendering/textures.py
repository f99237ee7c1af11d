"""Tileable grey patterns and their mip levels in one flat array, so that shading is a single gather per pixel."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]
Tile = NDArray[np.float64]  # (SIDE,SIDE), 0 dark .. 1 light

SIDE = 256  # texels of a tile's finest level
LEVELS = 9  # 256, 128, ..., 1
TILE = sum((SIDE >> level) ** 2 for level in range(LEVELS))  # texels of a tile with all its levels
_STARTS = np.cumsum([0, *((SIDE >> level) ** 2 for level in range(LEVELS - 1))]).astype(np.int32)


def lookup(pattern: NDArray[np.int32], level: NDArray[np.int32], *, u: Grey, v: Grey) -> Grey:
    """(n,) pattern, mip level and position in tiles -> (n,) float32 grey in [0,1]."""
    side = np.right_shift(SIDE, level)
    column = np.floor(u * side).astype(np.int32) & (side - 1)
    # Sides are powers of two, so a bit mask is the modulo, for negative positions too.
    row = np.floor(v * side).astype(np.int32) & (side - 1)
    return np.asarray(bank()[pattern * np.int32(TILE) + _STARTS[level] + row * side + column])


@cache
def bank() -> Grey:
    """() -> (patterns * TILE,) float32 grey in [0,1]: every level of every pattern, row by row"""
    rng = np.random.default_rng(20)  # one stream for all patterns: a new one goes last, or all after it change
    return np.concatenate([_levels(draw(rng)) for draw in _DRAWN]).astype(np.float32)


def index_of(name: str) -> int:
    """The index of a pattern of this name in the bank."""
    return NAMES.index(name)


def _levels(tile: Tile) -> Tile:
    """(SIDE,SIDE) -> (TILE,) the tile and its mip levels, each the mean of four texels of the one before"""
    levels = [tile]
    while levels[-1].size > 1:
        side = len(levels[-1]) // 2
        levels.append(levels[-1].reshape(side, 2, side, 2).mean(axis=(1, 3)))
    return np.concatenate([level.ravel() for level in levels])


def _grid(count: int) -> tuple[Tile, Tile, NDArray[np.int32], NDArray[np.int32]]:
    """Cells a side -> (SIDE,SIDE) row and column inside the cell in [0,1), row and column of the cell."""
    position = (np.arange(SIDE) + 0.5) * count / SIDE
    inside, cell = position % 1.0, position.astype(np.int32)
    row, column = np.meshgrid(inside, inside, indexing="ij")
    cell_row, cell_column = np.meshgrid(cell, cell, indexing="ij")
    return row, column, cell_row, cell_column


def _smooth(rng: np.random.Generator, *, across: float, down: float) -> Tile:
    """Wavelengths in texels -> (SIDE,SIDE) tileable noise in [0,1] without finer detail."""
    frequency = np.fft.fftfreq(SIDE)  # filtered in the frequency domain, which makes the noise tileable
    gain = np.exp(-((frequency[:, None] * down) ** 2) - (frequency[None, :] * across) ** 2)
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * gain).real
    noise /= 4.0 * noise.std()  # so that two standard deviations fit into [0,1] around a half
    return np.clip(noise + 0.5, 0.0, 1.0)


def _plaster(rng: np.random.Generator) -> Tile:
    return 0.6 * _smooth(rng, across=60, down=60) + 0.25 * _smooth(rng, across=9, down=9) + 0.1


def _carpet(rng: np.random.Generator) -> Tile:
    fine, middle = _smooth(rng, across=3, down=3), _smooth(rng, across=20, down=20)
    return 0.55 * fine + 0.3 * middle + 0.15 * _smooth(rng, across=80, down=80)


def _checker(rng: np.random.Generator) -> Tile:
    _, _, row, column = _grid(4)
    return 0.85 * ((row + column) % 2) + 0.15 * _smooth(rng, across=12, down=12)


def _stripes(rng: np.random.Generator) -> Tile:
    _, column, _, cell = _grid(8)
    return 0.75 * (cell % 2) + 0.25 * (column < 0.25)


def _planks(rng: np.random.Generator) -> Tile:
    """Boards along v, each of its own tone, with grain and dark joints."""
    _, column, _, board = _grid(6)
    v = (np.arange(SIDE)[:, None] / SIDE + rng.random(6)[board]) % 1.0
    half = (v > 0.5).astype(np.int32)
    tone = 0.35 + 0.5 * rng.random((2, 6))[half, board]
    grain = _smooth(rng, across=4, down=90)
    joint = (column < 0.04) | (np.abs(v - 0.5) < 0.006)
    return np.where(joint, 0.0, 0.6 * tone + 0.4 * grain)


def _grain(rng: np.random.Generator) -> Tile:
    rings = np.sin(2 * np.pi * (6 * np.arange(SIDE)[None, :] / SIDE + 1.2 * _smooth(rng, across=50, down=220)))
    return 0.3 + 0.2 * rings + 0.5 * _smooth(rng, across=4, down=100)


def _tiles(rng: np.random.Generator) -> Tile:
    row, column, cell_row, cell_column = _grid(4)
    joint = (row < 0.04) | (column < 0.04)
    tone = 0.65 + 0.3 * rng.random((4, 4))[cell_row, cell_column] + 0.1 * _smooth(rng, across=20, down=20)
    return np.where(joint, 0.0, np.minimum(tone, 1.0))


def _bricks(rng: np.random.Generator) -> Tile:
    row, _, cell_row, _ = _grid(8)
    # Every second row is shifted by half a brick.
    along = (np.arange(SIDE)[None, :] * 4 / SIDE + 0.5 * (cell_row % 2)) % 4
    tone = 0.45 + 0.4 * rng.random((8, 4))[cell_row, along.astype(np.int32)] + 0.15 * _smooth(rng, across=6, down=6)
    return np.where((row < 0.1) | (along % 1.0 < 0.05), 0.05, tone)


def _dots(rng: np.random.Generator) -> Tile:
    row, column, cell_row, _ = _grid(6)
    column = (column + 0.5 * (cell_row % 2)) % 1.0
    return np.where(np.hypot(row - 0.5, column - 0.5) < 0.27, 1.0, 0.0)


def _books(rng: np.random.Generator) -> Tile:
    """Spines of random width and tone side by side, with a darker band on each."""
    edges = np.sort(rng.integers(0, SIDE, 26))  # the last spine continues as the first, so that the tile repeats
    spine = np.searchsorted(edges, np.arange(SIDE)) % 26
    tone = 0.15 + 0.85 * rng.random(26)[spine][None, :] * np.ones((SIDE, 1))
    band = np.abs((np.arange(SIDE)[:, None] * 4 / SIDE + rng.random(26)[spine]) % 1.0 - 0.5) < 0.07
    return np.where(np.isin(np.arange(SIDE), edges)[None, :], 0.0, np.where(band, 0.4 * tone, tone))


def _picture(rng: np.random.Generator) -> Tile:
    """Overlapping discs and bars: a poster without a subject."""
    row, column, _, _ = _grid(1)
    grey = np.full((SIDE, SIDE), 0.3)
    for _ in range(14):
        y, x, size, tone = rng.random(4)
        bar = (np.abs(row - y) < 0.2 * size) & (np.abs(column - x) < 0.3)
        grey[np.hypot(row - y, column - x) < 0.25 * size if tone < 0.6 else bar] = tone
    return grey


_DRAWN: tuple[Callable[[np.random.Generator], Tile], ...] = (
    _plaster,
    _carpet,
    _checker,
    _stripes,
    _planks,
    _grain,
    _tiles,
    _bricks,
    _dots,
    _books,
    _picture,
)
NAMES = tuple(draw.__name__.removeprefix("_") for draw in _DRAWN)
