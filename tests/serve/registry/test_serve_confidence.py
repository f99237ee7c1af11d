"""A network with confidence in the store: its card says so, and a replica's network has it, with its temperature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from checkpoints import write_unsure

from depthray import load
from depthray.checkpoints import load as checkpoints
from depthray.checkpoints import save
from depthray.checkpoints.calibration import Temperature
from serve.registry import golden
from serve.registry.store import Store
from serve.replica.network import Network
from serve.settings import ModelSettings


def test_it_is_served_with_its_temperature(tmp_path: Path) -> None:
    plain = write_unsure(tmp_path / "run", "data.size=64,96")
    contents = replace(checkpoints.load(plain, state=True), temperature=Temperature(2.0))
    store = Store(tmp_path / "store")
    version = store.add("depth", save.write(tmp_path / "calibrated", contents))
    predictor = load(store.path("depth", version))
    store.keep_golden("depth", version, golden.answers(predictor))
    store.point("depth", version)
    assert store.card("depth").confidence
    network = Network(predictor, ModelSettings(max_batch=1))
    network.compare(store.golden("depth", version), most=1e-3)
    network.probe()
    sample = golden.samples(predictor.recipe.data)[0]
    (ours,), (before,) = network.run([sample]), load(plain).run([sample])
    assert {*ours} == {"depth", "sigma", "confidence"}
    np.testing.assert_allclose(ours["sigma"], 2 * before["sigma"], rtol=1e-4)
    assert (ours["confidence"] <= before["confidence"]).all() and ours["confidence"].mean() < before[
        "confidence"
    ].mean()


def test_a_confidence_that_is_none_is_a_fault() -> None:
    assert golden.fault_of("confidence", np.full((2, 2), 0.5, np.float32)) == ""
    assert golden.fault_of("confidence", np.full((2, 2), 1.5, np.float32)) == "no probability"
    assert golden.fault_of("sigma", np.full((2, 2), -0.1, np.float32)) == "not positive"
