"""Ray Serve over real HTTP: answers equal the predictor's, promotions and deaths of replicas fail no request."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import observe
import pytest
from own_package import forget, write_package
from paths import ROOT
from serve_networks import broken, photograph, write_checkpoint

from depthray.errors import CheckpointError
from depthray.predict import load
from serve.registry.promotion import promote
from serve.registry.store import Store

BEFORE = ROOT / "tests" / "made_before" / "v0.1.0"


class Service(NamedTuple):
    """A running service."""

    port: int
    store: Store
    runs: list[Path]

    def ask(self, path: str = "/v1/depth", body: bytes = b"", method: str = "POST", kind: str = "image/png") -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=body or None, headers={"Content-Type": kind} if body else {})
            response = connection.getresponse()
            return Reply(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
        finally:
            connection.close()


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    body: bytes
    headers: dict[str, str]


def png(image: Any) -> bytes:
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def service(cluster_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    runs = [
        write_checkpoint(tmp_path_factory.mktemp("run"), "data.size=64,96", seed=0).parents[1],
        write_checkpoint(tmp_path_factory.mktemp("run"), "data.size=48,64", seed=1).parents[1],
    ]
    store = Store(tmp_path_factory.mktemp("served"))
    promote(store, "depth", runs[0])
    settings = {"store": str(store.root), "timeout_seconds": "50", "queued": "8", "ingress_replicas.cpus": "0.5"}
    settings |= {"model.poll_seconds": "0.1", "model.max_batch": "4", "model.trust": "true"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray import serve

        from serve.app import build

        port = free_port()
        quiet = {"enable_access_log": False, "log_level": "WARNING"}
        serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 60}, logging_config=quiet)
        serve.run(build(settings), name="depth", route_prefix="/", logging_config=quiet)
        try:
            yield Service(port, store, runs)
        finally:
            serve.shutdown()


@dataclass
class Load:
    """Requests from several threads until the context ends, with their replies and failures."""

    service: Service
    replies: list[Reply] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._send_requests) for _ in range(3)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send_requests(self) -> None:
        body = png(photograph())
        while not self._ended.is_set():
            try:
                reply = self.service.ask("/v1/depth?format=npy", body)
            except OSError as error:
                self.failures.append(repr(error))
                continue
            (self.replies if reply.status == 200 else self.failures).append(reply)


def eventually(true: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in {seconds:.0f} s, with a load of {os.getloadavg()[0]:.0f}"
        time.sleep(0.1)


def test_the_png_equals_the_predictor_to_the_millimetre(service: Service) -> None:
    reply = service.ask(body=png(photograph(120, 90)))
    assert reply.status == 200 and reply.headers["content-type"] == "image/png"
    depth = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert depth is not None and depth.dtype == np.uint16 and depth.shape == (120, 90)
    expected = load(service.runs[0]).predict(photograph(120, 90))
    assert np.abs(depth - expected * 1000.0).max() <= 1
    assert reply.headers["x-model"] == f"depth@{service.store.pointer('depth').current}"
    assert reply.headers["x-model-input-size"] == "96x64"


def test_models_and_health_are_reported(service: Service) -> None:
    assert service.ask("/v2/health/live", method="GET").status == 200
    assert service.ask("/v2/health/ready", method="GET").status == 200
    (model,) = json.loads(service.ask("/v1/models", method="GET").body)["models"]
    assert model["id"] == f"depth@{service.store.pointer('depth').current}" and model["inputs"] == ["image"]
    assert service.ask("/v1/models/none/depth", png(photograph())).status == 404


def test_a_bad_image_among_good_ones_fails_alone(service: Service) -> None:
    bodies = [png(photograph(40 + index, 60)) for index in range(5)]
    bodies.insert(2, bodies[0][: len(bodies[0]) // 2])
    replies: dict[int, Reply] = {}

    def ask(index: int) -> None:
        replies[index] = service.ask(body=bodies[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [replies[index].status for index in range(len(bodies))] == [200, 200, 400, 200, 200, 200]


def test_overload_is_refused_with_a_time_to_retry_after(service: Service) -> None:
    body = png(photograph(1500, 2000))
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(service.ask(body=body))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [reply for reply in replies if reply.status != 200]
    assert refused and {reply.status for reply in refused} == {429}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert {reply.headers["content-type"] for reply in refused} == {"application/problem+json"}
    assert len(replies) - len(refused) >= 8
    assert service.ask(body=png(photograph())).status == 200


def test_promotions_good_and_bad_under_load_fail_no_request(service: Service, tmp_path: Path) -> None:
    old = service.store.pointer("depth").current
    bad = broken(write_checkpoint(tmp_path / "bad", seed=3), "flipped")

    def answers(version: str, replies: Sequence[Reply]) -> bool:
        return any(reply.headers["x-model"] == f"depth@{version}" for reply in replies)

    with Load(service) as requests:
        new = promote(service.store, "depth", service.runs[1]).pointer.current
        eventually(lambda: answers(new, requests.replies))
        with pytest.raises(CheckpointError):
            promote(service.store, "depth", bad)
        service.store.rollback("depth")
        eventually(lambda: answers(old, requests.replies[-1:]))
        eventually(lambda: len(requests.replies) > 20)
    assert not requests.failures
    assert {reply.headers["x-model"] for reply in requests.replies} == {f"depth@{old}", f"depth@{new}"}


def test_a_killed_replica_is_replaced_and_no_request_fails(service: Service) -> None:
    with Load(service) as requests:
        eventually(lambda: len(requests.replies) > 5)
        killed = _pid_of("Depth")
        os.kill(killed, signal.SIGKILL)
        before = len(requests.replies)
        eventually(lambda: len(requests.replies) > before + 10)
    assert not requests.failures
    assert _pid_of("Depth") != killed


def test_a_network_of_ones_own_is_promoted_and_served(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch, tmp_path)
    (tmp_path / "net.py").write_text((write_package(tmp_path) / "net.py").read_text())
    own = write_checkpoint(tmp_path / "own", words=["data.size=64,96", "model.name=./net.py", "model.width=8"])
    (tmp_path / "net.py").unlink()  # the checkpoint has a copy of it
    promote(service.store, "own", own, trust=True)
    body = png(photograph(120, 90))
    eventually(lambda: service.ask("/v1/models/own/depth", body).status == 200)
    depth = np.load(io.BytesIO(service.ask("/v1/models/own/depth?format=npy", body).body))
    np.testing.assert_allclose(depth, load(own, trust=True).predict(photograph(120, 90)).metres, atol=1e-3)


def test_models_that_version_0_1_0_promoted_and_trained_predict_the_depth_of_then(service: Service) -> None:
    shutil.copytree(BEFORE / "served" / "depth", service.store.root / "before")
    promote(service.store, "trained-before", BEFORE / "runs" / "finished")
    image = png(observe.photograph())
    expected = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))["predicted"]
    for model in ("before", "trained-before"):
        path = f"/v1/models/{model}/depth?format=npy"
        eventually(partial(_answers, service, path, image))
        depth = np.load(io.BytesIO(service.ask(path, image).body))
        assert np.allclose(observe.cells(depth), expected, rtol=1e-3), model


def _answers(service: Service, path: str, image: bytes) -> bool:
    return service.ask(path, image).status == 200


def _pid_of(deployment: str) -> int:
    """The process of a replica, by its title."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(f"ray::ServeReplica:depth:{deployment}".encode()):
            return int(folder.name)
    raise AssertionError(f"no replica of {deployment}")
