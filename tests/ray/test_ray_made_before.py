"""A search and a model of version 0.1.0 on Ray: the search resumes, the model answers (see tests/made_before)."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import observe
import pytest
from paths import ROOT
from PIL import Image

from depthray.__main__ import main

MADE = ROOT / "tests" / "made_before" / "v0.1.0"
EXPECTED = json.loads((MADE / "expected.json").read_text(encoding="utf-8"))


def test_a_killed_search_resumes_and_its_running_trial_ends_with_the_same_weights(
    tmp_path: Path, cluster_address: str
) -> None:
    search = Path(shutil.copytree(MADE / "searches" / "killed", tmp_path / "killed"))
    ended = {name: (search / "trials" / name / "trial.json").read_bytes() for name in ("default", "0000")}
    assert main(["tune", "--resume", str(search), "--address", cluster_address]) == 0

    before = EXPECTED["killed_resumed"]
    trials = observe.trials(search)
    assert {name: trial["state"] for name, trial in trials.items()} == {
        name: trial["state"] for name, trial in before["trials"].items()
    }
    for name, record in ended.items():
        assert (search / "trials" / name / "trial.json").read_bytes() == record, "what ended was run again"
        assert trials[name] == before["trials"][name]
    now = {"weights": observe.weights(search / "trials" / "0001"), "epochs": trials["0001"]["epochs"]}
    was = {"weights": before["weights"], "epochs": before["trials"]["0001"]["epochs"]}
    observe.check_resumed(now, was, EXPECTED["processor"])
    assert json.loads((search / "search.json").read_text(encoding="utf-8"))["ended"] > 0


@pytest.fixture
def port(cluster_address: str) -> Iterator[int]:
    """A port at which Ray Serve answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray import serve

        serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 60})
        try:
            yield port
        finally:
            serve.shutdown()


def test_models_of_a_store_and_a_checkpoint_predict_the_depth_of_before(port: int, tmp_path: Path) -> None:
    store, checkpoint = (Path(shutil.copytree(MADE / name, tmp_path / name)) for name in ("served", "runs/finished"))
    arguments = {"store": str(store), "ingress_replicas.cpus": "0.5", "checkpoint": str(checkpoint), "name": "promoted"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray import serve

        from serve.app import build

        serve.run(build(arguments), name="before", route_prefix="/")
    for model in ("depth", "promoted"):
        assert np.allclose(observe.cells(predict(port, model)), EXPECTED["predicted"], rtol=1e-3), model


def predict(port: int, model: str) -> np.ndarray:
    """The depth in metres that a model of the service predicts for a generated image."""
    image = io.BytesIO()
    Image.fromarray(observe.photograph()).save(image, "PNG")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"Content-Type": "image/png"}
        connection.request("POST", f"/v1/models/{model}/depth?format=npy", image.getvalue(), headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    assert response.status == 200, body
    depth: np.ndarray = np.load(io.BytesIO(body))
    return depth
