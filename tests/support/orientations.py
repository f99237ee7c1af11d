"""Photographs as a turned camera stores them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda array: np.rot90(array, 2),
    4: np.flipud,
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, 1),
    7: lambda array: np.rot90(array, 2).swapaxes(0, 1),
    8: lambda array: np.rot90(array, -1),
}


def stored_as(array: np.ndarray, orientation: int) -> np.ndarray:
    """The array a camera would store so that this orientation shows it upright: the inverse of the turn."""
    turn = TURNS.get(orientation)
    return np.ascontiguousarray(turn(array) if turn else array)
