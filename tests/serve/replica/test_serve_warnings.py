"""Answers say what of an image is not as in training: measured in the replica's room, the camera by the HTTP API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from asgi import ask
from model_cards import FACTS, with_facts
from serve_backend import Fake, app
from serve_networks import photograph, write_checkpoint
from serve_requests import post

from depthray.checkpoints import model_facts
from depthray.client import responses
from serve.backend import BackendAnswer, ModelCard
from serve.registry.promotion import promote
from serve.registry.store import Store
from serve.replica import limits_check


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A network without facts, and one with facts and a report on it."""
    folder = tmp_path_factory.mktemp("cards")
    checkpoint = with_facts(write_checkpoint(folder / "run"))
    report = folder / "run" / "evaluations" / f"{checkpoint.name}-val-robustness"
    report.mkdir(parents=True)
    (report / "robustness.json").write_text('{"networks": [{"corruptions": {"dark": {"slope": 0.5}}}]}')
    store = Store(folder / "store")
    promote(store, "old", write_checkpoint(folder / "old", seed=1))
    promote(store, "rooms", checkpoint)
    return store


def test_what_a_network_has_not_seen_is_said(store: Store) -> None:
    image = photograph(240, 320) // 8
    sample = {"image": cv2.resize(image, (96, 64), interpolation=cv2.INTER_AREA)}
    far = {"depth": np.full((64, 96), 20.0, np.float32)}
    found = limits_check.warnings(store.card("rooms"), (240, 320), sample, far)
    assert [text.partition(":")[0] for text in found] == ["dark", "depth"]
    floats = {"image": sample["image"] - np.float32(0.4)}  # as bicubic resizing overshoots
    assert limits_check.warnings(store.card("rooms"), (240, 320), floats, {})[0].startswith("dark")
    focal = limits_check.focal(store.card("rooms"), (240, 320), sample)
    assert focal is not None and focal[0] == pytest.approx(259.5 * 320 / 96)
    assert limits_check.warnings(store.card("old"), (240, 320), sample, far) == ()
    assert limits_check.focal(store.card("old"), (240, 320), sample) is None


class Stored(Fake):
    """The models of a store."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    async def models(self) -> list[ModelCard]:
        return [self.store.card(name) for name in self.store.names()]


def test_the_list_of_models_has_the_card(store: Store) -> None:
    card = store.card("rooms")
    assert card.facts == replace(FACTS, robustness={"dark": 0.5})
    assert any("640 x 480 pixels, fx 519 px, 0.7 to 9.0 m" in line for line in card.limits)
    assert store.card("old").facts is None and store.card("old").limits == ()
    (first, second) = ask(app(Stored(store)), "GET", "/v1/models").tree["models"]
    assert first["facts"] is None and second["facts"]["data"]["licences"] == ["none stated"]
    assert second["limits"] == list(card.limits)


def test_a_version_that_is_forgotten_takes_its_facts_along(store: Store, tmp_path: Path) -> None:
    kept = Store(tmp_path)
    version = kept.add("rooms", store.path("rooms", store.pointer("rooms").current))
    kept.keep_facts("rooms", version, FACTS)
    assert list(tmp_path.rglob("facts/*.json"))
    kept.remove("rooms", version)
    assert not list(tmp_path.rglob("facts/*.json"))


class Warning(Fake):
    """A network that warns, and knows focal lengths of 40 to 45 pixels of this image."""

    async def predict(self, *given: Any, **options: Any) -> BackendAnswer:
        return replace(await super().predict(*given, **options), warnings=("dark: very",), focal=(40.0, 45.0))


@pytest.mark.parametrize(
    ("query", "header"),
    [
        ("", "dark: very"),
        ("?format=ply", "dark: very"),  # a camera that is assumed is nobody's
        ("?format=npy&fov=60", "dark: very"),
        ("?fx=90", "dark: very; focal length 90 px, where training had 40 to 45 px: metres are likely 2.00 times too"),
    ],
)
def test_the_header_has_all_warnings(query: str, header: str) -> None:
    reply = post(to=app(Warning()), path=f"/v1/depth{query}")
    assert reply.status == 200 and reply.headers["x-depth-warning"].startswith(header)
    assert ("focal" in header) == ("focal" in reply.headers["x-depth-warning"])
    assert "x-depth-warning" not in post(path=f"/v1/depth{query}").headers


def test_clients_read_the_header() -> None:
    reply = post(to=app(Warning()), path="/v1/depth?format=npy&fx=90")
    headers = {key: reply.headers[key] for key in ("x-depth-warning",)}
    request = httpx.Request("POST", "http://server/v1/depth")
    estimate = responses.read(
        httpx.Response(200, headers=headers, content=reply.body, request=request), form="npy", image=b""
    )
    assert estimate.warnings[0] == "dark: very" and estimate.warnings[1].startswith("focal length 90 px")
    assert responses.Estimate({}, b"").warnings == ()


def test_facts_of_a_store_that_are_damaged_are_those_of_the_checkpoint(store: Store) -> None:
    version = store.pointer("rooms").current
    path = store.root / "rooms" / "facts" / f"{version}.json"
    data = path.read_bytes()
    try:
        path.write_bytes(data[:-9])
        assert store.facts("rooms", version) == FACTS
    finally:
        path.write_bytes(data)
    assert model_facts.parse(data, where=path).robustness
