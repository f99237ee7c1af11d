"""The example picture of the page at /: a rendered room, which is nobody's photograph."""

from __future__ import annotations

from functools import cache

import cv2

from depthray.data.rendering.render import render_frame

SEED, FRAME = 0, 0
HEIGHT, WIDTH = 480, 640  # pixels
QUALITY = 90


@cache
def jpeg() -> bytes:
    """The bytes of a JPEG file of 640x480 pixels; the first call takes some tenths of a second to render it."""
    rgb = render_frame(SEED, FRAME, height=HEIGHT, width=WIDTH)["image"]
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()
