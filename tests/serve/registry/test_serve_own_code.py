"""A network of one's own is served where the server is told to trust it, and refused before anything is stored else."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_package import forget, write_package

from depthray import models
from depthray.checkpoints import save
from depthray.checkpoints.load import CheckpointContents
from depthray.config import recipe
from depthray.errors import UsageError
from depthray.predict import load
from serve import settings
from serve.command import SUBCOMMANDS, build_parser
from serve.registry.promotion import promote
from serve.registry.store import Store


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a file that is gone since, in a process that was allowed nothing."""
    forget(monkeypatch, tmp_path)
    package = write_package(tmp_path)
    read = recipe.read("demo", ["model.name=./mypkg/net.py", "model.width=8", "data.size=32,32"])
    weights = dict(models.build_model(read.model, read.data.inputs).state_dict())
    path = save.write(tmp_path / "checkpoints", CheckpointContents(weights, {}, read, {}, 0, 1, ""))
    forget(monkeypatch, tmp_path)
    (package / "net.py").unlink()
    return path


def test_a_promotion_needs_trust(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "served")
    with pytest.raises(UsageError, match="add --trust"):
        promote(store, "rooms", checkpoint)
    assert store.names() == []
    version = promote(store, "rooms", checkpoint, trust=True).pointer.current
    assert store.card("rooms").architecture.startswith("code-net-")  # and not where it is on this machine
    forget(monkeypatch, tmp_path)  # a replica is another process
    with pytest.raises(UsageError, match="add --trust"):
        load(store.path("rooms", version), device="cpu")
    assert load(store.path("rooms", version), device="cpu", trust=True).recipe.model.options == {"width": 8}


def test_the_flag_is_a_setting_of_replicas() -> None:
    assert build_parser().parse_args(["runs/x", "--trust"]).trust and "promote" in SUBCOMMANDS
    assert settings.load(None, ["model.trust=true"]).model.trust and not settings.load(None, []).model.trust
