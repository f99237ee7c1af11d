"""Maps as images: depth in the colours a client asks for, near warm and far cold, and lossless PNG."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from depthray.imaging import sheets
from serve.http.query import Options

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FILTER_UP = 2  # each row as its difference to the one above
_LEVEL = 1  # of 0 to 3

ColourRange = tuple[float, float]  # the values at both ends of the colour map


def paint_depth(depth: NDArray[np.float32], options: Options) -> tuple[NDArray[np.uint8], ColourRange]:
    """(H,W) metres -> (H,W,3) uint8 RGB, grey where unmeasured, and the metres at the ends of the colours."""
    near, far = _colour_range(depth, options)
    share = (np.nan_to_num(depth) - near) / (far - near)
    painted = sheets.colour_map(options.cmap)[levels(share)]
    painted[~sheets.is_measured(depth)] = sheets.UNMEASURED
    return painted, (near, far)


def paint_mask(mask: NDArray[np.float32]) -> tuple[NDArray[np.uint8], ColourRange]:
    """(H,W) probability of a mask, or confidence -> (H,W,3) uint8 RGB, black to white."""
    return np.repeat(levels(np.nan_to_num(mask))[..., None], 3, axis=2), (0.0, 1.0)


def encode_png(pixels: NDArray[Any]) -> bytes:
    """(H,W) uint16, (H,W) uint8 or (H,W,3) uint8 RGB -> a PNG file.

    Written here, as OpenCV's fastest compression takes four times as long for a file of the same size: for a map of
    640x480 4 to 12 ms, which may be as much as the network takes.
    """
    height, width = pixels.shape[:2]
    bits, colour_type = 8 * pixels.itemsize, 2 if pixels.ndim == 3 else 0
    # PNG has the high byte first.
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0], filtered[0, 1:] = _FILTER_UP, rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">2I5B", width, height, bits, colour_type, 0, 0, 0)
    data = isal_zlib.compress(filtered, _LEVEL)
    return b"".join((_PNG_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))


def levels(share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H,W) in [0,1], clamped -> (H,W) uint8, 255 = 1, as the index of a colour table."""
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _colour_range(depth: NDArray[np.float32], options: Options) -> ColourRange:
    """The metres at the ends of the colours: the requested ones, else round numbers around the map's own range."""
    if options.near is not None and options.far is not None:
        return options.near, options.far
    near, far, step = sheets.depth_scale([depth])
    near = near if options.near is None else options.near
    far = far if options.far is None else options.far
    if near < far:
        return near, far
    # One end was requested beyond the other one, which was not: that one moves.
    return (near, near + step) if options.far is None else (far - step, far)
