"""Most of these tests train on the same few rendered frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rendered


@pytest.fixture(scope="module", autouse=True)
def frames_drawn_once() -> Iterator[None]:
    with rendered.drawn_once():
        yield
