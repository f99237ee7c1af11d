"""`depthray serve promote RUN --not-worse-on DATA`: what is served changes only for a network that is no worse."""

from __future__ import annotations

from pathlib import Path

import pytest
from serve_networks import write_checkpoint

import depthray
from depthray.__main__ import main
from depthray.errors import CheckpointError, UsageError
from serve.registry.promotion import promote
from serve.registry.quality import Demand
from serve.registry.store import Store


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """28 rendered frames of 7 rooms."""
    folder = tmp_path_factory.mktemp("rooms") / "rooms"
    assert main(["data", "render", str(folder), "--frames", "28", "--size", "32", "48", "--layout", "folder"]) == 0
    return str(folder)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory, rooms: str) -> tuple[Path, Path]:
    """A network and one that is worse on the rooms."""
    folder = tmp_path_factory.mktemp("runs")
    pair = write_checkpoint(folder / "a").parent.parent, write_checkpoint(folder / "b", scale=0.7).parent.parent
    (each,) = depthray.compare(*pair, data=rooms, split="all").sets
    verdict = each.scores[1].overall[0].verdict
    assert verdict in ("better", "worse")
    return pair if verdict == "worse" else pair[::-1]


def test_a_worse_network_is_not_served(tmp_path: Path, ranked: tuple[Path, Path], rooms: str) -> None:
    good, bad = ranked
    store, demand = Store(tmp_path / "store"), Demand(rooms, split="all")
    before = promote(store, "rooms", good, demand=demand)
    assert before.found == "", "there was nothing to compare with"
    with pytest.raises(CheckpointError, match=r"worse than what is served: abs_rel \+0.* on 28 frames of .*--force"):
        promote(store, "rooms", bad, demand=demand)
    assert store.pointer("rooms") == before.pointer and len(store.versions("rooms")) == 1
    assert promote(store, "rooms", bad, demand=demand, force=True).pointer.previous == before.pointer.current
    assert promote(store, "rooms", good, demand=demand, force=False).found.startswith("abs_rel -0.")


def test_too_few_scenes_and_frames_that_were_trained_on_are_no_proof(
    tmp_path: Path, ranked: tuple[Path, Path], rooms: str
) -> None:
    store = Store(tmp_path / "store")
    promote(store, "rooms", ranked[1])
    with pytest.raises(CheckpointError, match="too few scenes to tell: abs_rel "):
        promote(store, "rooms", ranked[0], demand=Demand(rooms))
    trained = write_checkpoint(tmp_path / "run", "data.source=folder", f"data.root={rooms}", seed=3).parent.parent
    with pytest.raises(UsageError, match=r"--not-worse-on .*: this network was trained on \d+ of these 28 frames"):
        promote(store, "rooms", trained, demand=Demand(rooms, split="all"))


def test_the_command_says_what_it_found(
    tmp_path: Path, ranked: tuple[Path, Path], rooms: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = map(str, ranked)
    flags = ["--store", str(tmp_path / "store"), "--not-worse-on", rooms, "--split", "all"]
    assert main(["serve", "promote", bad, *flags]) == 0
    assert main(["serve", "promote", good, *flags]) == 0
    assert "compared    abs_rel -0." in capsys.readouterr().out
    assert main(["serve", "promote", bad, *flags]) == 3
    assert "worse than what is served" in capsys.readouterr().err.splitlines()[-1]
