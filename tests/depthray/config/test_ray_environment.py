"""The environment of Ray, set before it is imported and never over what the user has set; and its start."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray

from depthray.config.ray_environment import TRIES, prepare_environment, start_local
from depthray.errors import ResourceError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})


def test_a_local_cluster_gets_a_token_of_its_own() -> None:
    prepare_environment({"RAY_A": "1"}, local=True)
    assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_A"] == "1" and os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_cluster_of_others_gets_none() -> None:
    prepare_environment({}, local=False)
    assert "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ


def test_the_settings_of_the_user_are_kept() -> None:
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_A="2", RAY_USAGE_STATS_ENABLED="1")
    prepare_environment({"RAY_A": "1"}, local=True)
    assert os.environ == {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_A": "2", "RAY_USAGE_STATS_ENABLED": "1"}
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize("failures", [0, 1, TRIES])
def test_a_start_that_a_busy_machine_makes_too_slow_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    calls: list[str] = []

    def init(*address: str, **settings: Any) -> None:
        assert (address, settings) == (("local",), {"num_cpus": 2})
        calls.append("init")
        if calls.count("init") <= failures:
            raise Exception("The current node timed out during startup.\nThis could happen")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    if failures == TRIES:
        with pytest.raises(ResourceError, match=r"did not start .*: The current node timed .* startup; .* too busy"):
            start_local(ray, num_cpus=2)
        assert calls == ["init", "shutdown"] * TRIES
    else:
        start_local(ray, num_cpus=2)
        assert calls == ["init", "shutdown"] * failures + ["init"]
