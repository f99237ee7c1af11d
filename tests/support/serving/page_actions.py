"""What a person does with the page of a depth server, and what is then seen."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from serve_fake import wall

from depthray.imaging.camera import assumed_camera, unproject

if TYPE_CHECKING:
    from playwright import sync_api

HEIGHT, WIDTH = 120, 160
Open = Callable[..., "sync_api.Page"]


def give(page: sync_api.Page, path: Path) -> None:
    page.set_input_files("#file", path)
    page.wait_for_selector("#result:not([hidden])")
    page.wait_for_selector("body:not(.busy)")


def until(page: sync_api.Page, true: str) -> None:
    """Wait for an expression. Playwright's own way evaluates in the page, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(true):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {true}")


def spot(page: sync_api.Page, u: int, v: int) -> dict[str, float]:
    """The middle of a pixel of the image, from the corner of its canvas."""
    box = page.locator("#flat").bounding_box()
    assert box is not None
    size = page.evaluate("[document.getElementById('flat').width, document.getElementById('flat').height]")
    return {"x": (u + 0.5) * box["width"] / size[0], "y": (v + 0.5) * box["height"] / size[1]}


def pixels_of(page: sync_api.Page, name: str) -> np.ndarray:
    """What an element looks like -> (H,W,3) RGB."""
    shot = cv2.imdecode(np.frombuffer(page.locator(name).screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert shot is not None
    return shot[..., ::-1].astype(int)


def canvas_of(page: sync_api.Page, name: str = "flat") -> np.ndarray:
    """The pixels of a canvas, that of the image by default -> (H,W,3) RGB."""
    data = page.evaluate(f"document.getElementById('{name}').toDataURL('image/png').split(',')[1]")
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    return shown[..., ::-1].astype(int)


def metres_apart(rgb: np.ndarray, one: tuple[int, int], two: tuple[int, int], *, degrees: float = 60.0) -> float:
    depth = wall(rgb)
    camera = assumed_camera(*depth.shape, degrees=degrees)
    ends = [unproject(u, v, float(depth[v, u]), camera=camera) for u, v in (one, two)]
    return float(np.linalg.norm(ends[0] - ends[1]))
