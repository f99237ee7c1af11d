"""`model.flip` and `model.confidence`: answers of the mirrored image too, by a network that is as when promoted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from serve_networks import photograph, write_checkpoint

from depthray.network_inputs import prepare
from depthray.predict import load
from serve import settings
from serve.registry import golden
from serve.registry.store import Store
from serve.replica.network import Network
from serve.replica.replica import Replica


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run"))


def test_a_replica_flips(checkpoint: Path) -> None:
    plain, options = load(checkpoint, device="cpu"), settings.parse({"model": {"flip": True}}).model
    assert options.flip and not settings.Settings().model.flip
    network = Network(load(checkpoint, device="cpu", flip=options.flip), options)
    sample, mirrored = (prepare(rgb, {}, plain.recipe.data) for rgb in (photograph(), photograph()[:, ::-1].copy()))
    (answer,) = network.run([sample])
    one, other = (plain.run([each])[0]["depth"] for each in (sample, mirrored))
    assert np.allclose(answer["depth"], (one + other[:, ::-1]) / 2, rtol=1e-5) and not np.allclose(one, answer["depth"])
    network.compare(golden.answers(plain), 1e-5)


def test_a_replica_adds_confidence_by_the_mirrored_image(store: Store) -> None:
    name = store.names()[0]
    version = store.pointer(name).current
    plain = load(store.path(name, version), device="cpu")
    sample = prepare(photograph(), {}, plain.recipe.data)
    options = {"device": "cpu", "confidence": "flip", "max_batch": 1, "deviation": 1e-3}
    served = Replica(settings.parse({"store": str(store.root), "model": options}).model_dump())
    reply = asyncio.run(served.predict(name, version, sample, 30))
    assert not reply.fault and {*reply.maps} == {"depth", "sigma", "confidence"}
    (expected,) = load(store.path(name, version), device="cpu", confidence="flip").run([sample])
    for key, values in expected.items():
        assert np.allclose(reply.maps[key], values, rtol=1e-3, atol=1e-5)
