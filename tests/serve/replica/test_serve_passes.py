"""`model.flip`: a replica answers the mean with the mirrored image, and still has to predict as when promoted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from serve_networks import photograph, write_checkpoint

from depthray.network_inputs import prepare
from depthray.predict import load
from serve import settings
from serve.registry import golden
from serve.replica.network import Network


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
