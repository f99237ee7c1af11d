"""A real headless Chromium for the tests of pages; they are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright import sync_api

DESK = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
ROOT_FLAGS = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()


@contextmanager
def launched(*flags: str) -> Iterator[sync_api.Browser]:
    """The browser, started with the flags and closed at the end."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(executable_path=path, args=[*flags, *ROOT_FLAGS])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium that starts: apt-get install chromium-headless-shell ({str(error)[:80]})")
        yield made
        made.close()
