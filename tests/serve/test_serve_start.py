"""A start of Ray Serve that takes long says what it waits for, and one that fails is one line. Without a cluster."""

from __future__ import annotations

import importlib
import time
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from depthray.errors import DepthrayError, ResourceError
from serve import lifetime
from serve.proxy import admission
from serve.settings import Settings


@pytest.fixture
def ray_serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ray Serve on a cluster that the calling program has started, as far as a start needs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        import ray
        from ray import serve

        app = importlib.import_module("serve.app")

    monkeypatch.setattr(lifetime, "prepare_environment", lambda *_, **__: None)
    monkeypatch.setenv(admission.VARIABLE, "")  # so that what a start sets ends with the test
    monkeypatch.setattr(lifetime, "ANNOUNCE_SECONDS", 0.05)
    monkeypatch.setattr(app, "bind", lambda settings: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={}))
    for name in ("start", "delete", "shutdown"):
        monkeypatch.setattr(serve, name, lambda *_, **__: None)
    return serve


def test_a_proxy_that_dies_is_one_line(
    ray_serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray.exceptions import ActorDiedError

    def start(**_: Any) -> None:
        time.sleep(0.3)
        raise ActorDiedError

    monkeypatch.setattr(ray_serve, "start", start)
    with pytest.raises(ResourceError, match=r"Ray Serve did not start: .*too busy.*start it again") as raised:
        lifetime.run(Settings(), "127.0.0.1", 8000)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().err.count("waiting for Ray Serve to start") >= 2


def test_a_replica_that_fails_is_the_last_line_of_its_traceback(
    ray_serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: Any, **__: Any) -> None:
        time.sleep(0.2)
        raise RuntimeError("Deploying failed:\nTraceback\nDataError: no such model\n\n")

    monkeypatch.setattr(ray_serve, "run", run)
    with pytest.raises(DepthrayError, match=r"^the service did not start: DataError: no such model$"):
        lifetime.run(Settings(), "127.0.0.1", 8000)
    assert "waiting for a replica to load the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, "Ray did not start on this machine: The node failed to start; .*too busy"),
        (
            "nowhere:6379",
            "--address nowhere:6379: The node failed to start; is it the address of a running Ray cluster",
        ),
    ],
)
def test_a_cluster_that_does_not_start_or_answer_is_one_line(
    ray_serve: Any, monkeypatch: pytest.MonkeyPatch, address: str | None, message: str
) -> None:
    import ray

    def init(*_: Any, **__: Any) -> None:
        raise ConnectionError("The node failed to start.\nCheck the logs")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ResourceError, match=message):
        lifetime.run(Settings(), "127.0.0.1", 8000, address=address)
