"""The store: versions, promotion and rollback; a faulty checkpoint changes nothing of what is served."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serve_networks import broken, write_checkpoint

from depthray.checkpoints import load, save
from depthray.checkpoints.origin import Origin
from depthray.errors import CheckpointError, DepthrayError, UsageError
from depthray.storage import local
from serve.registry import golden
from serve.registry.promotion import promote
from serve.registry.store import Pointer, Store


def test_promotion_and_rollback_move_the_pointer(store: Store, runs: list[Path]) -> None:
    first = store.pointer("rooms")
    assert first == Pointer(store.versions("rooms")[0])
    done = promote(store, "rooms", runs[1])
    assert done.pointer.previous == first.current and done.typical is not None and 1 < done.typical < golden.MAX_FACTOR
    assert store.rollback("rooms") == Pointer(first.current, done.pointer.current)
    assert store.rollback("rooms") == done.pointer
    assert promote(store, "rooms", runs[1]).pointer == done.pointer  # again: nothing changes
    assert len(store.versions("rooms")) == 2


def test_a_card_has_the_properties_that_a_client_needs(store: Store) -> None:
    card = store.card("rooms")
    assert card.id == f"rooms@{store.pointer('rooms').current}" and card.default
    assert (card.architecture, card.inputs, card.targets, card.size) == ("unet", ("image",), ("depth",), (64, 96))
    assert card.metrics == {"abs_rel": 0.1}
    assert card.origin == {}


def test_a_card_says_whose_weights_a_network_started_from_without_paths(store: Store, tmp_path: Path) -> None:
    contents = load.load(write_checkpoint(tmp_path / "run"))
    started = Origin("hf:a/b@main/c.pth", "DINOv2", "CC-BY-NC-4.0", False, sha256="0" * 64)
    for number, origin in enumerate((started, replace(started, source="/home/me/c.pth"))):
        checkpoint = save.write(tmp_path / f"{number}" / "checkpoints", replace(contents, origin=origin))
        promote(store, f"licensed-{number}", checkpoint)
    assert store.card("licensed-0").origin == {
        "source": "hf:a/b@main/c.pth",
        "family": "DINOv2",
        "licence": "CC-BY-NC-4.0",
        "commercial": False,
        "sha256": "0" * 64,
    }
    assert "source" not in store.card("licensed-1").origin


def test_the_first_model_is_the_default(store: Store, runs: list[Path]) -> None:
    promote(store, "aisles", runs[1])
    assert store.names() == ["rooms", "aisles"] and not store.card("aisles").default
    store.make_default("aisles")
    assert store.names() == ["aisles", "rooms"]


def test_a_network_whose_depth_is_not_in_metres_is_not_served(store: Store, tmp_path: Path) -> None:
    before = store.pointer("rooms")
    midas = write_checkpoint(tmp_path / "run", "loss={ssi: 1}", "eval.protocol=affine-disparity")
    with pytest.raises(UsageError, match="serving needs metres, and this network's depth is right up to a scale"):
        promote(store, "rooms", midas)
    assert store.pointer("rooms") == before and len(store.versions("rooms")) == 1


@pytest.mark.parametrize("how", ["flipped", "missing", "nan", "other"])
def test_a_bad_checkpoint_changes_nothing(store: Store, tmp_path: Path, how: str) -> None:
    before, versions = store.pointer("rooms"), store.versions("rooms")
    bad = broken(write_checkpoint(tmp_path / "run", seed=2), how)
    with pytest.raises(CheckpointError) as error:
        promote(store, "rooms", bad)
    assert "\n" not in str(error.value)
    assert store.pointer("rooms") == before and store.versions("rooms") == versions
    assert not [path for path in store.root.rglob(f"{local.UNFINISHED}*")]


def test_a_network_far_from_the_one_before_needs_force(store: Store, tmp_path: Path) -> None:
    before = store.pointer("rooms")
    far = write_checkpoint(tmp_path / "run", "data.max_depth=80", "model.max_depth=80", seed=0)
    with pytest.raises(CheckpointError, match="times apart"):
        promote(store, "rooms", far)
    assert store.pointer("rooms") == before
    assert promote(store, "rooms", far, force=True).pointer.previous == before.current


def test_a_damaged_copy_is_replaced_by_promoting_again(store: Store, runs: list[Path]) -> None:
    version = store.pointer("rooms").current
    broken(store.path("rooms", version), "flipped")
    promote(store, "rooms", runs[0])
    assert store.card("rooms").version == version
    store.add("rooms", next((runs[0] / "checkpoints").iterdir()))


def test_a_name_is_no_path(store: Store, runs: list[Path]) -> None:
    for name in ("../x", "", "a/b", "A", "x" * 65, ".hidden", "ü", "a\x00b"):
        with pytest.raises(UsageError):
            promote(store, name, runs[0])
        with pytest.raises(DepthrayError):
            store.path("rooms", name)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"current": "../../x"}', json.dumps({"current": 1}), '{"now": "a"}'])
def test_a_damaged_pointer_is_reported_and_replaced(store: Store, runs: list[Path], text: str) -> None:
    (store.root / "rooms" / "current.json").write_text(text)
    with pytest.raises(CheckpointError, match="damaged"):
        store.pointer("rooms")
    promote(store, "rooms", runs[1])
    assert store.pointer("rooms").current


def test_a_rollback_without_a_version_before_and_an_unknown_model_are_reported(store: Store) -> None:
    with pytest.raises(UsageError, match="no version before"):
        store.rollback("rooms")
    with pytest.raises(CheckpointError, match="did you mean 'rooms'"):
        store.pointer("room")


def test_predictions_that_are_not_finite_always_differ() -> None:
    good, bad = {"depth": np.ones((4, 4), np.float32)}, {"depth": np.full((4, 4), np.nan, np.float32)}
    found = golden.difference([bad, good], [good, good])
    assert not found.relative <= 1e9 and not found.typical <= 1e9


def aged(store: Store, *versions: str) -> None:
    """These were last served or added long ago."""
    for version in versions:
        os.utime(store.path("rooms", version), (1, 1))


def test_pruning_keeps_what_is_served_what_is_new_and_what_may_still_be_loaded(store: Store, tmp_path: Path) -> None:
    first = store.pointer("rooms").current
    rest = [promote(store, "rooms", write_checkpoint(tmp_path / f"{seed}", seed=seed)) for seed in (2, 3, 4)]
    second, third, fourth = (done.pointer.current for done in rest)
    assert store.prune("rooms", 0) == []  # all of them were served just now
    aged(store, first, second, third, fourth)
    (store.root / "rooms" / "versions" / ".writing-killed").mkdir()
    assert store.prune("rooms", 4) == []
    os.utime(store.path("rooms", second))
    assert store.prune("rooms", 1) == [first]
    assert {*store.versions("rooms")} == {second, third, fourth}
    assert {path.stem for path in (store.root / "rooms" / "golden").iterdir()} == {second, third, fourth}
    assert not list(store.root.rglob(".writing-*"))
    aged(store, second)
    assert store.prune("rooms", 0) == [second]
    assert store.rollback("rooms").current == third and store.golden("rooms", third)
    assert store.prune("none", 0) == []


def test_a_version_that_was_served_until_now_is_not_pruned(store: Store, runs: list[Path], tmp_path: Path) -> None:
    first = store.pointer("rooms").current
    promote(store, "rooms", runs[1])
    aged(store, *store.versions("rooms"))
    promote(store, "rooms", write_checkpoint(tmp_path / "run", seed=2))  # the first leaves the pointer
    assert first not in store.pointer("rooms").versions
    assert store.prune("rooms", 0) == []
    (store.root / "rooms" / "current.json").write_text("{")
    aged(store, *store.versions("rooms"))
    assert store.prune("rooms", 0) == []  # it is unknown which are served
