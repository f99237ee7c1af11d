"""A served network of a canonical camera: its card says so, requests give their camera, and metres are of that."""

from __future__ import annotations

import warnings
from collections.abc import Coroutine
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from asgi import ask
from serve_backend import encoded
from serve_networks import photograph, write_checkpoint
from serve_requests import depth, post, refused

from depthray.predict import load
from serve.http import routes
from serve.http.auth import Keys
from serve.registry import golden
from serve.registry.store import Store
from serve.replica.network import Network
from serve.replica.replica import Reply
from serve.settings import ModelSettings, Settings

PHOTO = photograph(120, 180)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("canonical")
    store = Store(folder / "store")
    version = store.add("any", write_checkpoint(folder / "run", "data.canonical_focal=50"))
    predictor = load(store.path("any", version), device="cpu")
    store.keep_golden("any", version, golden.answers(predictor))
    store.point("any", version)
    return store


class Handle:
    """The networks of a store in this process, with the interface of a handle of Ray Serve."""

    def __init__(self, store: Store) -> None:
        predictor = load(store.path("any", store.pointer("any").current), device="cpu")
        self.network = Network(predictor, ModelSettings(max_batch=1))
        self.predict = SimpleNamespace(remote=self._predict)

    def _predict(self, name: str, version: str, sample: Any, seconds: float) -> Coroutine[Any, Any, Reply]:
        async def reply() -> Reply:
            return Reply(version, self.network.run([sample])[0])

        return reply()


@pytest.fixture(scope="module")
def api(store: Store) -> Any:
    settings = Settings(store=store.root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray, about itself
        router = import_module("serve.replica.router")
    return routes.create(router.Router(Handle(store), settings), settings, keys=Keys([]), send_id=True)


def test_requests_give_their_camera(api: Any, store: Store) -> None:
    body = encoded(PHOTO)
    refused(post(body, to=api, path="/v1/depth?format=npy"), 422, "needs the camera of the image", "fx")
    predictor = load(store.path("any", store.pointer("any").current), device="cpu")
    for query, focal in (("fx=100", 100.0), ("fx=70&fy=70&cx=80&cy=60", 70.0), ("fov=60", 90 / np.tan(np.pi / 6))):
        metres = depth(post(body, to=api, path=f"/v1/depth?format=npy&{query}"))
        expected = predictor.predict(PHOTO, camera=(focal, focal, 89.5, 59.5))
        np.testing.assert_allclose(metres, expected, rtol=1e-4)


def test_the_card_says_so_and_focal_lengths_are_no_warning(api: Any, store: Store) -> None:
    (card,) = ask(api, "GET", "/v1/models").tree["models"]
    assert card["canonical_focal"] == 50 and card["canonical"] == "label"
    reply = post(encoded(PHOTO), to=api, path="/v1/depth?format=npy&fx=1000")
    assert "focal length" not in reply.headers.get("x-depth-warning", "")


def test_golden_images_have_their_camera(store: Store) -> None:
    network = Handle(store).network
    network.compare(store.golden("any", store.pointer("any").current), most=1e-3)
    network.probe()
