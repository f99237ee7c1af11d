"""The environment of Ray: set before it is imported, and never over what the user has set."""

from __future__ import annotations

import os

import pytest

from depthray.config.ray_environment import prepare_environment


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
