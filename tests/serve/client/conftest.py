"""A fake depth server, its address, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serve_clients import QUICK
from serve_fake import Fake, running

from serve.client.client import DepthClient


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def url(fake: Fake) -> Iterator[str]:
    with running(fake.app) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[DepthClient]:
    with DepthClient(url, retry=QUICK) as made:
        yield made
