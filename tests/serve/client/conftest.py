"""A client of the fake depth server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serve_clients import QUICK

from depthray.client.client import DepthClient


@pytest.fixture
def client(url: str) -> Iterator[DepthClient]:
    with DepthClient(url, retry=QUICK) as made:
        yield made
