"""One replica, without Ray: it follows the store, answers in batches, and detects that it is broken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_networks import broken, photograph

from depthray.config.sections import Data
from depthray.errors import CheckpointError, DataError
from depthray.network_inputs import prepare, restore
from depthray.predict import load
from serve.registry.promotion import promote
from serve.registry.store import Store
from serve.replica.replica import Replica, Reply


@pytest.fixture
def depth(store: Store) -> Iterator[Replica]:
    replica = Replica({"store": str(store.root), "model": {"poll_seconds": 0.05, "max_batch": 4}})
    yield replica
    replica.__del__()


def ask(depth: Replica, version: str, *images: Any, name: str = "rooms", seconds: float = 30.0) -> list[Reply]:
    """The replies to images sent at once."""
    samples = [prepare(image, {}, Data(size=(64, 96))) for image in images]

    async def gather() -> list[Reply]:
        return await asyncio.gather(*[depth.predict(name, version, sample, seconds) for sample in samples])

    return asyncio.run(gather())


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_batch_answers_as_the_predictor_does(depth: Replica, store: Store, runs: list[Path]) -> None:
    images = [photograph(50 + 7 * place, 70) for place in range(6)]
    replies = ask(depth, store.pointer("rooms").current, *images)
    predictor = load(runs[0])
    for image, reply in zip(images, replies, strict=True):
        assert not reply.fault and reply.timings["model"] > 0
        found = restore(reply.maps, (image.shape[0], image.shape[1]))["depth"]
        assert np.abs(found - predictor.predict(image)).max() < 1e-4


def test_a_promotion_is_followed_and_the_version_before_still_answers(
    depth: Replica, store: Store, runs: list[Path]
) -> None:
    old = store.pointer("rooms").current
    new = promote(store, "rooms", runs[1]).pointer.current
    eventually(lambda: not ask(depth, new, photograph())[0].fault)
    assert not ask(depth, old, photograph())[0].fault
    found = restore(ask(depth, new, photograph())[0].maps, (50, 70))["depth"]
    assert np.abs(found - load(runs[1]).predict(photograph())).max() < 1e-4


def test_the_reply_for_a_version_not_loaded_names_the_loaded_one(depth: Replica, store: Store) -> None:
    assert ask(depth, "0" * 12, photograph()) == [Reply(store.pointer("rooms").current, fault="elsewhere")]
    assert ask(depth, "0" * 12, photograph(), name="none") == [Reply("", fault="elsewhere")]


@pytest.mark.parametrize("how", ["flipped", "nan", "other"])
def test_a_broken_version_never_replaces_one_that_answers(
    depth: Replica, store: Store, runs: list[Path], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    old = store.pointer("rooms").current
    new = store.add("rooms", next((runs[1] / "checkpoints").iterdir()))
    store.keep_golden("rooms", new, store.golden("rooms", old))
    broken(store.path("rooms", new), how)
    store.point("rooms", new)
    eventually(lambda: f"{new} cannot be served" in caplog.text)
    assert not ask(depth, old, photograph())[0].fault
    assert ask(depth, new, photograph()) == [Reply(old, fault="elsewhere")]


def test_weights_that_predict_otherwise_than_when_promoted_are_not_served(
    store: Store, runs: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    old = store.pointer("rooms").current
    new = promote(store, "rooms", runs[1]).pointer.current
    store.keep_golden("rooms", new, store.golden("rooms", old))
    replica = Replica({"store": str(store.root)})  # a new replica falls back to the version before
    assert "golden images is off" in caplog.text
    assert ask(replica, new, photograph())[0] == Reply(old, fault="elsewhere")
    assert not ask(replica, old, photograph())[0].fault


def test_a_replica_without_any_good_model_does_not_start(store: Store) -> None:
    broken(store.path("rooms", store.pointer("rooms").current), "flipped")
    with pytest.raises(CheckpointError, match="no model that can be served"):
        Replica({"store": str(store.root)})


def test_predictions_that_are_not_finite_fail_the_health_check(
    depth: Replica, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = store.pointer("rooms").current
    asyncio.run(depth.check_health())
    network = depth._networks["rooms", version]
    weights = next(iter(network.predictor.model.parameters()))
    weights.data.fill_(float("nan"))
    given_up: list[bool] = []
    monkeypatch.setattr(depth, "give_up", lambda: given_up.append(True))
    assert ask(depth, version, photograph())[0].fault == "nan"
    with pytest.raises(RuntimeError, match="not a number"):
        asyncio.run(depth.check_health())
    assert given_up == [True]


def test_black_white_and_noise_are_answered(depth: Replica, store: Store) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    images = [np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8), noise]
    for reply in ask(depth, store.pointer("rooms").current, *images):
        assert not reply.fault and np.isfinite(reply.maps["depth"]).all()


def test_a_bad_item_fails_alone(depth: Replica, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "give_up", pytest.fail)
    version = store.pointer("rooms").current
    good = prepare(photograph(), {}, Data(size=(64, 96)))
    bad: Any = {"image": np.array([["x"]], dtype=object)}

    async def gather() -> list[Reply]:
        calls = [depth.predict("rooms", version, sample, 30.0) for sample in [*[good] * 7, bad, *[good] * 8]]
        return await asyncio.gather(*calls)

    faults = [reply.fault for reply in asyncio.run(gather())]
    assert faults == [*[""] * 7, "broken", *[""] * 8]


def test_a_refusal_of_the_network_is_reported(
    depth: Replica, store: Store, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise DataError("semantics: class id 900")

    version = store.pointer("rooms").current
    with monkeypatch.context() as patch:
        patch.setattr("depthray.models.check_ids", refuse)
        assert ask(depth, version, photograph()) == [Reply(version, fault="input", detail="semantics: class id 900")]
    monkeypatch.setattr(depth, "_networks", _Vanishing(depth._networks))
    assert ask(depth, version, photograph()) == [Reply(version, fault="elsewhere")]


class _Vanishing(dict[Any, Any]):
    """Networks that are unloaded between the check and the forward pass."""

    def get(self, *_: Any) -> None:
        return None


def test_a_request_whose_time_is_over_is_late(depth: Replica, store: Store) -> None:
    assert ask(depth, store.pointer("rooms").current, photograph(), seconds=-1.0)[0].fault == "late"


def test_the_store_is_not_read_any_more_once_the_replica_is_deleted(store: Store) -> None:
    import gc
    import threading

    def watching() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name == "depthray-store"}

    depth = Replica({"store": str(store.root), "model": {"poll_seconds": 0.05}})
    assert watching()
    del depth
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "depthray-store":
            thread.join(5)
    assert not watching()
