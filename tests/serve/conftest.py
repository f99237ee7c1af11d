"""A fake depth server and its address; two runs to serve, and a store with the first of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_fake import Fake, running
from serve_networks import write_checkpoint

from serve.registry.promotion import promote
from serve.registry.store import Store


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def url(fake: Fake) -> Iterator[str]:
    with running(fake.app) as address:
        yield address


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_checkpoint(tmp_path_factory.mktemp("run"), seed=seed).parents[1] for seed in (0, 1)]


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, runs: list[Path]) -> Path:
    folder = tmp_path_factory.mktemp("promoted")
    promote(Store(folder), "rooms", runs[0])
    return folder


@pytest.fixture
def store(tmp_path: Path, promoted: Path) -> Store:
    return Store(shutil.copytree(promoted, tmp_path / "served"))
