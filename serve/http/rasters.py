"""Maps as images in the colours a client asks for: near is bright or warm, far is dark or cold."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.imaging import sheets
from serve.http.query import Options

_TABLES = {
    "turbo": cv2.COLORMAP_TURBO,
    "magma": cv2.COLORMAP_MAGMA,
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
}

Ends = tuple[float, float]

# The choice among all filters, OpenCV's default, takes twice as long for maps and gains nothing.
_PLAINLY = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)


def paint(depth: NDArray[np.float32], options: Options) -> tuple[NDArray[np.uint8], Ends]:
    """(H,W) metres -> (H,W,3) uint8 RGB, grey where unmeasured, and the metres at the ends of the colours."""
    near, far = _ends(depth, options)
    share = (np.nan_to_num(depth) - near) / (far - near)
    painted = _table(options.cmap)[_steps(share)]
    painted[~(np.isfinite(depth) & (depth > 0))] = sheets.UNMEASURED
    return painted, (near, far)


def paint_mask(mask: NDArray[np.float32]) -> tuple[NDArray[np.uint8], Ends]:
    """(H,W) probability -> (H,W,3) uint8 RGB, black to white."""
    return np.repeat(_steps(np.nan_to_num(mask))[..., None], 3, axis=2), (0.0, 1.0)


def _steps(share: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _ends(depth: NDArray[np.float32], options: Options) -> Ends:
    """The metres at the ends: those asked for, else round ones of what is there."""
    near, far, step = sheets.depth_scale([depth])
    near = near if options.near is None else options.near
    far = far if options.far is None else options.far
    if near < far:
        return near, far
    return (near, near + step) if options.far is None else (far - step, far)


def _table(name: str) -> NDArray[np.uint8]:
    """-> (256,3) uint8 RGB from near to far."""
    ramp = np.arange(256, dtype=np.uint8)[::-1, None]
    if name == "gray":
        return np.repeat(ramp, 3, axis=1)
    return np.ascontiguousarray(cv2.applyColorMap(ramp, _TABLES[name])[:, 0, ::-1], np.uint8)


def encode_png(pixels: NDArray[Any]) -> bytes:
    """(H,W) uint16, (H,W) uint8 or (H,W,3) uint8 RGB -> a PNG file."""
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", ordered, _PLAINLY)
    if not done:
        raise RuntimeError(f"OpenCV cannot write PNG of shape {pixels.shape}")
    return data.tobytes()
