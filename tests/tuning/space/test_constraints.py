"""Constraints: how they are given, what is refused, and by how much a trial is beyond one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from depthray.errors import UsageError
from tuning.space import constraints, space

RATES = "optim.lr: {loguniform: [1e-5, 1e-2]}"


def test_constraints_of_a_file_are_no_ranges() -> None:
    text = f"{RATES}\nconstraints: {{latency_ms: 20, parameters: 5e6}}"
    found = space.parse(yaml.safe_load(text), where="mine")
    assert [dimension.key for dimension in found.dimensions] == ["optim.lr"]
    assert found.constraints == {"latency_ms": 20.0, "parameters": 5e6}
    assert space.parse(space.to_tree(found), where="mine") == found


def test_points_may_have_constraints() -> None:
    found = space.parse({"points": [{"optim.lr": 1e-3}], "constraints": {"parameters": 1000}}, where="mine")
    assert found.constraints == {"parameters": 1000.0}
    assert space.parse(space.to_tree(found), where="mine") == found


def test_flags_name_a_cost_and_its_limit() -> None:
    assert constraints.parse_flags(["latency_ms=20", "parameters=5e6"]) == {"latency_ms": 20.0, "parameters": 5e6}
    assert constraints.parse_flags([]) == {}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([20], "limits by name"),
        ({"latency": 20}, "did you mean 'latency_ms'"),
        ({"abs_rel": 0.1}, "nothing that can be limited"),
        ({"latency_ms": "fast"}, "a number above 0, not 'fast'"),
        ({"latency_ms": 0}, "a number above 0"),
        ({"latency_ms": True}, "a number above 0"),
        ({"latency_ms": [1]}, "a number above 0"),
        ({"latency_ms": float("nan")}, "a number above 0"),
        ({"latency_ms": float("inf")}, "a number above 0"),
    ],
)
def test_what_is_no_limit_is_refused(tree: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        constraints.parse(tree, where="mine")


def test_a_cost_is_beyond_its_limit_by_a_share_of_it() -> None:
    limits = {"latency_ms": 20.0, "parameters": 100.0}
    assert constraints.excess(limits, {"latency_ms": 25.0, "parameters": 50.0}) == {
        "latency_ms": 0.25,
        "parameters": -0.5,
    }
    assert constraints.excess(limits, {"latency_ms": None}) == {}
    assert constraints.excess({}, {"latency_ms": 25.0}) == {}
