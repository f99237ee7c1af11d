"""Rendered frames that several tests read, drawn once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from typing import Any

import pytest

from depthray.data.rendering import render

# Drawing a frame takes longer than a step of a small network on it. Tests of the renderer itself draw each anew.
_drawn = lru_cache(maxsize=1024)(render.render_frame)


@contextmanager
def drawn_once() -> Iterator[None]:
    """Within it, a frame that was drawn before in this process is a copy of that one."""

    def render_frame(*arguments: Any, **size: int) -> Any:
        return deepcopy(_drawn(*arguments, **size))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "render_frame", render_frame)
        yield
