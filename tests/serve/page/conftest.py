"""A browser, and the page of the fake depth server opened in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import cv2
import numpy as np
import pytest
from page_actions import HEIGHT, WIDTH, Open, until

if TYPE_CHECKING:
    from playwright import sync_api

FLAGS = [
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a GPU
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]

INSIDE = ("blob:", "data:")  # addresses of what the page holds itself


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with chromium.launched(*FLAGS) as made:
        yield made


@pytest.fixture
def show(browser: sync_api.Browser, url: str) -> Iterator[Open]:
    """Opens the page; at the end nothing may have been logged, thrown, or downloaded from elsewhere."""
    faults: list[str] = []
    contexts = []

    def opened(*, allowed: str = "$^", **options: object) -> sync_api.Page:
        context = browser.new_context(**{**chromium.DESK, **options}, permissions=["camera"])
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"thrown: {error}"))
        page.on("console", lambda line: faults.extend([line.text] if not re.search(allowed, line.text) else []))
        page.on(
            "request", lambda request: faults.extend([] if request.url.startswith((url, *INSIDE)) else [request.url])
        )
        page.goto(url)
        until(page, "document.getElementById('model').options[0]?.value === 'room'")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def rgb() -> np.ndarray:
    """Grey noise with a red square, which the fake server puts 1 m nearer."""
    pixels = np.random.default_rng(1).integers(60, 190, (HEIGHT, WIDTH, 1)).astype(np.uint8).repeat(3, axis=2)
    pixels[40:80, 100:140] = (230, 20, 20)
    return pixels


@pytest.fixture
def photo(rgb: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "room.png"
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path
