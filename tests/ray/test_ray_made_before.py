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


def test_a_killed_search_resumes_and_its_running_trial_comes_to_the_same_weights(
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


@pytest.fixture(scope="module")
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


@pytest.mark.parametrize("given", ["checkpoint", "store"])
def test_a_model_answers_with_the_depth_it_predicted_before(given: str, port: int, tmp_path: Path) -> None:
    made = MADE / {"checkpoint": "runs/finished", "store": "served"}[given]
    copy = Path(shutil.copytree(made, tmp_path / given))
    arguments = {"store": str(tmp_path / "store"), "ingress_replicas.cpus": "0.5", given: str(copy)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray import serve

        from serve.app import build

        serve.run(build(arguments), name="before", route_prefix="/")
        try:
            depth = ask(port)
        finally:
            serve.delete("before")
    assert np.allclose(observe.cells(depth), EXPECTED["predicted"], rtol=1e-3)


def ask(port: int) -> np.ndarray:
    """The depth in metres that the service has for a picture made by code."""
    picture = io.BytesIO()
    Image.fromarray(observe.photograph()).save(picture, "PNG")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/depth?format=npy", picture.getvalue(), {"Content-Type": "image/png"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    assert response.status == 200, body
    depth: np.ndarray = np.load(io.BytesIO(body))
    return depth
