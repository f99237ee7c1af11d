"""Points that are seen by a camera -> its depth map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def nearest_depths(
    rows: NDArray[np.int64], columns: NDArray[np.int64], distance: NDArray[np.floating[Any]], *, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """(N,) pixels and metres -> (H,W) the smallest distance in metres at each pixel, 0 where there is none"""
    height, width = shape
    within = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    buffer = np.full(height * width, np.inf, np.float32)
    # minimum.at, as several points may fall on one pixel: plain indexing keeps any of them, not the nearest.
    np.minimum.at(buffer, rows[within] * width + columns[within], distance[within].astype(np.float32))
    buffer[np.isinf(buffer)] = 0
    return buffer.reshape(height, width)
