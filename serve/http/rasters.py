"""Maps as images: depth in the colours a client asks for, near warm and far cold, and lossless PNG."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.imaging import sheets
from serve.http.query import Options

# Each row as its difference to the one above. OpenCV's default, the choice among all filters, takes twice as long for
# maps and makes none of them smaller.
_PNG_FLAGS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)

ColourRange = tuple[float, float]  # the values at both ends of the colour map


def paint_depth(depth: NDArray[np.float32], options: Options) -> tuple[NDArray[np.uint8], ColourRange]:
    """(H,W) metres -> (H,W,3) uint8 RGB, grey where unmeasured, and the metres at the ends of the colours."""
    near, far = _colour_range(depth, options)
    share = (np.nan_to_num(depth) - near) / (far - near)
    painted = sheets.colour_map(options.cmap)[_levels(share)]
    painted[~sheets.is_measured(depth)] = sheets.UNMEASURED
    return painted, (near, far)


def paint_mask(mask: NDArray[np.float32]) -> tuple[NDArray[np.uint8], ColourRange]:
    """(H,W) probability -> (H,W,3) uint8 RGB, black to white."""
    return np.repeat(_levels(np.nan_to_num(mask))[..., None], 3, axis=2), (0.0, 1.0)


def encode_png(pixels: NDArray[Any]) -> bytes:
    """(H,W) uint16, (H,W) uint8 or (H,W,3) uint8 RGB -> a PNG file."""
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", ordered, _PNG_FLAGS)
    if not done:
        raise RuntimeError(f"OpenCV cannot write PNG of shape {pixels.shape}")
    return data.tobytes()


def _levels(share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H,W) in [0,1], clamped -> (H,W) uint8 index of a colour table."""
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _colour_range(depth: NDArray[np.float32], options: Options) -> ColourRange:
    """The metres at the ends of the colours: the requested ones, else round numbers around the map's own range."""
    near, far, step = sheets.depth_scale([depth])
    near = near if options.near is None else options.near
    far = far if options.far is None else options.far
    if near < far:
        return near, far
    # One end was requested beyond the other one, which was not: that one moves.
    return (near, near + step) if options.far is None else (far - step, far)
