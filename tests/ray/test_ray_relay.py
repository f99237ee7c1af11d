"""The router with replicas that die, run out of memory or refuse, by a handle that fails on purpose."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cards import with_facts
from serve_networks import photograph, write_checkpoint

from depthray.errors import DataError
from serve.backend import Broken, NotReady, TimedOut
from serve.registry.promotion import promote
from serve.registry.store import Store
from serve.replica.replica import Reply
from serve.settings import parse


class Handle:
    """In place of Ray Serve's: returns these outcomes one after the other, and then the last one always."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0
        self.predict = self

    def remote(self, name: str, version: str, *_: Any) -> Any:
        self.asked += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

        async def answer() -> Reply:
            if isinstance(outcome, Exception):
                raise outcome
            reply: Reply = outcome(version) if callable(outcome) else outcome
            return reply

        return answer()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    promote(Store(root), "rooms", with_facts(write_checkpoint(tmp_path_factory.mktemp("run"))))
    return root


@pytest.fixture(scope="module")
def relay() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("serve.replica.router")


@pytest.fixture
def ask(relay: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(relay, "PAUSE", 0.01)

    def ask(handle: Handle, *, seconds: float = 30.0) -> Any:
        backend = relay.Router(handle, parse({"store": str(root)}))
        return asyncio.run(backend.predict("", photograph(), {}, time.monotonic() + seconds))

    return ask


def died() -> Exception:
    from ray.exceptions import RayActorError

    return RayActorError()


def good(version: str) -> Reply:
    return Reply(version, {"depth": np.ones((64, 96), np.float32)}, {"queue": 0.0, "model": 0.0})


def test_another_replica_answers_when_one_dies(ask: Callable[..., Any]) -> None:
    handle = Handle(died(), died(), good)
    assert ask(handle).maps["depth"].shape == (50, 70) and handle.asked == 3


def test_an_answer_says_what_of_it_is_not_as_in_training(ask: Callable[..., Any]) -> None:
    far = ask(Handle(lambda version: Reply(version, {"depth": np.full((64, 96), 20, np.float32)})))
    assert far.warnings[-1] == "depth: 100 % of it is beyond the 0.70 to 9.00 m it was trained on"
    assert far.focal == pytest.approx((259.5 * 70 / 96,) * 2)


def test_a_request_at_which_replicas_die_is_not_sent_to_all_of_them(ask: Callable[..., Any], relay: Any) -> None:
    handle = Handle(died())
    with pytest.raises(Broken):
        ask(handle)
    assert handle.asked == relay.MAX_DEATHS


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply("", fault="memory"), NotReady),
        (Reply("", fault="late"), TimedOut),
        (Reply("", fault="nan"), Broken),
        (Reply("", fault="elsewhere"), NotReady),
        (Reply("", fault="input", detail="class id 900"), DataError),
    ],
)
def test_faults_of_replicas_become_errors_of_the_backend(
    ask: Callable[..., Any], reply: Reply, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask(Handle(reply))
