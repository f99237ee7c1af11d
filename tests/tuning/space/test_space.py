"""Spaces: reading, refusals with what to write instead, sampling, and how a value is written as an override."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from depthray.config.overrides import apply_override
from depthray.errors import UsageError
from tuning.space import space
from tuning.space.dimension import Dimension, overrides
from tuning.space.space import Space


def parsed(text: str) -> Space:
    return space.parse(yaml.safe_load(text), where="mine")


def draws(dimension: Dimension, count: int = 2000) -> list[Any]:
    rng = np.random.default_rng(1)
    return [dimension.sample(rng) for _ in range(count)]


def test_ranges_are_read_and_an_exponent_without_a_point_is_a_number() -> None:
    text = "about: mine\noptim.lr: {loguniform: [1e-5, 1E-2]}\naugment.hue: {choice: [0, 5e-2]}\n"
    found = parsed(f"{text}train.batch_size: {{logint: [8.0, 64]}}\ndata.size: {{choice: [[64, 64], [96, 128]]}}")
    assert found.about == "mine"
    assert found.dimensions == (
        Dimension("optim.lr", "loguniform", 1e-5, 1e-2),
        Dimension("augment.hue", "choice", values=(0, 0.05)),
        Dimension("train.batch_size", "logint", 8, 64),
        Dimension("data.size", "choice", values=([64, 64], [96, 128])),
    )
    assert isinstance(found.dimensions[2].low, int)


def test_points_are_read_with_their_notes() -> None:
    found = parsed("points: [{name: low, optim.lr: 2e-4, reference: {mse: 1e-2}}, {optim.lr: 0.002}]")
    assert found.points == ({"optim.lr": 2e-4}, {"optim.lr": 2e-3})
    assert found.notes == ({"name": "low", "reference": {"mse": 0.01}}, {})
    assert found.grid() == [{"optim.lr": 2e-4}, {"optim.lr": 2e-3}]
    assert found.sample(np.random.default_rng(0)) in found.grid()


@pytest.mark.parametrize("name", space.names())
def test_a_space_survives_json_and_yaml(name: str) -> None:
    found = space.read(name)
    tree = space.to_tree(found)
    assert space.parse(json.loads(json.dumps(tree)), where=name) == found
    assert space.parse(yaml.safe_load(yaml.safe_dump(tree, sort_keys=False)), where=name) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about: nothing else", "nothing to search"),
        ("about: [1]\noptim.lr: {uniform: [0, 1]}", "about is a line of text"),
        ("optim.lr: 0.1", "optim.lr: give one range, as in optim.lr: {loguniform"),
        ("optim.lr: {uniform: [0, 1], choice: [1, 2]}", "give one range"),
        ("optim.lr: {loguniforn: [0, 1]}", "no kind of range 'loguniforn' (did you mean 'loguniform'?)"),
        ("optim: {lr: {uniform: [0, 1]}}", "no kind of range 'lr'"),
        ("optim: {lr: {uniform: [0, 1]}}", "keys are written with dots"),
        ("optim.lr: {uniform: 3}", "uniform takes a list"),
        ("optim.lr: {uniform: [1]}", "uniform takes two numbers, [low, high], not [1]"),
        ("optim.lr: {uniform: [a, b]}", "uniform takes two numbers, [low, high], not [a,b]"),
        ("optim.lr: {uniform: [false, true]}", "uniform takes two numbers"),
        ("optim.lr: {uniform: [0, .inf]}", "inf cannot be the value of an override"),
        ("optim.lr: {choice: [0, .nan]}", "nan cannot be the value of an override"),
        ("model.classes: {choice: [null, 3]}", "null cannot be the value of an override"),
        ("about: x\nmodel.x: {choice: [{a: 1}]}", "{'a': 1} cannot be the value of an override"),
        ("train.batch_size: {integer: [1.5, 3]}", "integer takes whole numbers, not [1.5,3]"),
        ("points: []", "points is a list of mappings"),
        ("points: {optim.lr: 1}", "points is a list of mappings"),
        ("points: [{optim.lr: 1}]\noptim.lr: {uniform: [0, 1]}", "has points and ranges (optim.lr)"),
        ("points: [{optim: {lr: 1}}]", "point 1: optim: {'lr': 1} cannot be the value"),
        ("points: [{name: 3, optim.lr: 1}]", "point 1: name is text, not 3"),
        ("points: [{reference: 3}]", "reference is scores by name"),
        ("points: [{reference: {mse: low}}]", "reference.mse is a score, a number, not 'low'"),
    ],
)
def test_what_is_no_space_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"^mine: ") as caught:
        parsed(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_is_found_by_name_or_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim.lr: {loguniform: [1e-4, 1e-2]}\n")
    assert space.read(str(path)).dimensions == (Dimension("optim.lr", "loguniform", 1e-4, 1e-2),)
    path.write_text("optim.lr: {uniform: [0, 1]}\noptim.lr: {uniform: [0, 2]}\n")
    with pytest.raises(UsageError, match="given twice"):
        space.read(str(path))
    with pytest.raises(UsageError, match="did you mean 'learning-rate'"):
        space.read("learning-rates")
    with pytest.raises(UsageError, match="does not exist"):
        space.read(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    "value",
    [
        *(1e-5, 3e-4, 0.1 + 0.2, 1 / 3, 1e22, -2.5e-300, 0.0, 7, True, False),
        *("none", "yes", "1e-5", "", "a: b", "it's #1"),
        *([64, 64], [[64, 64], [1e-5, 2.0]], ["image", "sparse"], [], np.float64(1e-7), np.int64(3)),
    ],
)
def test_an_override_gives_back_exactly_its_value(value: Any) -> None:
    (override,) = overrides({"optim.lr": value})
    tree: dict[str, Any] = {}
    apply_override(tree, override)
    assert tree == {"optim": {"lr": value}}
    assert isinstance(value, np.generic) or type(tree["optim"]["lr"]) is type(value)


def test_overrides_are_short_and_a_rate_is_a_number_to_yaml() -> None:
    point = {
        "optim.lr": 1e-5,
        "loss.l1": 0.5,
        "data.size": [96, 128],
        "optim.name": "adam",
        "loss.silog_unbiased": True,
    }
    assert overrides(point) == [
        *("optim.lr=1.0e-05", "loss.l1=0.5", "data.size=[96,128]"),
        *("optim.name=adam", "loss.silog_unbiased=true"),
    ]


def test_random_values_are_plain_within_range_and_repeat_with_the_seed() -> None:
    found = space.read("all")
    one, other = (found.sample(np.random.default_rng(3)) for _ in range(2))
    assert one == other != found.sample(np.random.default_rng(4))
    assert json.loads(json.dumps(one)) == one
    assert list(one) == [dimension.key for dimension in found.dimensions]
    for dimension in found.dimensions:
        values = draws(dimension, 300)
        if dimension.kind == "choice":
            assert {*values} == {*dimension.values}
        else:
            assert all(dimension.low <= value <= dimension.high for value in values)


def test_each_kind_is_sampled_as_its_name_says() -> None:
    assert np.median(draws(Dimension("k", "uniform", 0, 10))) == pytest.approx(5, abs=0.5)
    assert np.median(draws(Dimension("k", "loguniform", 1e-4, 1.0))) == pytest.approx(1e-2, rel=0.4)
    assert 0.22 < np.mean([value == 4 for value in draws(Dimension("k", "integer", 1, 4))]) < 0.28
    whole = draws(Dimension("k", "logint", 1, 100))
    assert {type(value) for value in whole} == {int} and {1, 2, 100} < {*whole}
    assert np.median(whole) == pytest.approx(10, abs=1.5)


def test_a_number_is_clamped_to_its_range_and_shortened() -> None:
    rate, whole = Dimension("k", "loguniform", 1.23456e-4, 0.1), Dimension("k", "logint", 8, 64)
    assert [rate.round(value) for value in (1e-9, 1.23457e-4, 0.0123456, 3)] == [1.23456e-4, 1.235e-4, 0.01235, 0.1]
    assert [whole.round(value) for value in (1.2, 8.6, 100.0)] == [8, 9, 64]
    assert {type(whole.round(value)) for value in (1.2, 8.6, 100.0)} == {int}
    assert max(len(str(value)) for value in draws(rate, 300)) <= 9


@pytest.mark.parametrize(
    ("dimension", "edges"),
    [
        (
            Dimension("k", "uniform", 0, 10),
            {0: "low", 0.2: "low", 0.3: "", 9.7: "", 9.8: "high", -1: "low", 11: "high"},
        ),
        (Dimension("k", "loguniform", 1e-4, 1.0), {1.1e-4: "low", 2e-4: "", 0.5: "", 0.9: "high", 0: "low"}),
        (Dimension("k", "integer", 1, 9), {1: "low", 2: "", 8: "", 9: "high"}),
        (Dimension("k", "logint", 8, 64), {8: "low", 9: "", 64: "high"}),
        (Dimension("k", "choice", values=(0, 0.1, 0.4)), {0: "low", 0.1: "", 0.4: "high", 0.2: ""}),
        (Dimension("k", "choice", values=(1, 0.9, 0.6)), {1: "high", 0.9: "", 0.6: "low"}),
        (Dimension("k", "choice", values=(0, 2, 1)), {0: "", 2: ""}),
        (Dimension("k", "choice", values=("a", "b")), {"a": "", "b": ""}),
        (Dimension("k", "uniform", 0, 1), {math.nan: "", math.inf: "", None: "", "0": "", True: ""}),
    ],
)
def test_the_edge_of_a_range_is_its_outer_2_percent_or_the_last_of_ordered_choices(
    dimension: Dimension, edges: dict[Any, str]
) -> None:
    assert {value: dimension.edge(value) for value in edges} == edges


def test_a_grid_is_every_combination_once() -> None:
    found = parsed("optim.lr: {choice: [1e-4, 1e-3]}\noptim.warmup_steps: {integer: [0, 2]}").grid()
    assert found == [{"optim.lr": lr, "optim.warmup_steps": steps} for lr in (1e-4, 1e-3) for steps in (0, 1, 2)]


def test_a_grid_refuses_a_range_without_steps_with_one_that_has_them() -> None:
    with pytest.raises(UsageError, match=r"optim\.lr: a grid needs single values") as caught:
        space.read("all").grid()
    (advice,) = re.findall(r"write (.*?), or", str(caught.value))
    (dimension,) = parsed(advice).dimensions
    assert dimension.values == (1e-5, 4e-4, 2e-2)
    with pytest.raises(UsageError, match="the grid has 1000000 points"):
        parsed("optim.warmup_steps: {integer: [1, 1000000]}").grid()


def test_reading_a_space_waits_for_neither_torch_nor_ray() -> None:
    look = "sys.exit(bool({'torch', 'ray'} & {*sys.modules}))"
    code = f"import sys; from tuning.space import space; space.read('all'); {look}"
    subprocess.run([sys.executable, "-c", code], check=True)
