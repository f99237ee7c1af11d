"""The connection to a cluster leaves the process as it was."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import session
from depthray.errors import ResourceError

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Ray replaced by what it does to signals, in the main thread; what is called of it."""
    import ray

    names: list[str] = []

    def init(*_: Any, **__: Any) -> None:
        names.append("init")
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                signal.signal(number, lambda *_: names.append("of Ray"))

    before = {number: signal.getsignal(number) for number in NUMBERS}
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: names.append("shutdown"))
    yield names
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_handlers_of_signals_outlive_the_start_of_ray(calls: list[str], address: str | None) -> None:
    for number in NUMBERS:
        signal.signal(number, lambda *_: calls.append("ours"))
    with session.ray_cluster(address, workers=1):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert calls == ["init", "ours", "ours", "shutdown"]


def test_rays_handler_stays_where_there_was_none(calls: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with session.ray_cluster(None, workers=1):
        signal.raise_signal(signal.SIGTERM)
    assert calls == ["init", "of Ray", "shutdown"]


def test_another_thread_than_the_main_one_connects_too(calls: list[str]) -> None:
    def connect() -> None:
        with session.ray_cluster(None, workers=1):
            calls.append("connected")

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    assert calls == ["init", "connected", "shutdown"]


@pytest.mark.parametrize("error", [ConnectionError("Could not find\nany Ray instance"), ValueError("bad port")])
def test_a_cluster_that_does_not_answer_is_one_line(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def init(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("ray.init", init)
    wanted = "--address nowhere:1: cannot connect: "
    with pytest.raises(ResourceError, match=wanted) as caught, session.ray_cluster("nowhere:1", workers=1):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("workers", "seconds"), [(1, 0.5), (64, 0.5), (128, 1), (1024, 8)])
def test_one_process_polls_no_more_than_so_many_workers_a_second(workers: int, seconds: float) -> None:
    assert session.poll_seconds(workers) == seconds


@pytest.mark.parametrize(("address", "seconds"), [(None, "0.2"), ("10.0.0.1:6379", "4")])
def test_the_interval_is_set_before_ray_is_imported(
    address: str | None, seconds: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(session.POLL)
    monkeypatch.setattr(session, "start_local", lambda *_, **__: None)
    with session.ray_cluster(address, workers=512):
        assert os.environ[session.POLL] == seconds
    monkeypatch.delenv(session.POLL)
