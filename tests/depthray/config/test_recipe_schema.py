"""The published JSON schema of recipes is that of the code, and an editor that reads it accepts the shipped recipes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from depthray.__main__ import main
from depthray.config import recipe as recipes

SCHEMA = recipes.RECIPES / "schema.json"


class EditorLoader(yaml.SafeLoader):
    """YAML 1.2 as editors read it: `3e-4` is a number, which YAML 1.1 takes for text."""


EditorLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?"), list("-+.0123456789")
)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(validator: Draft202012Validator, text: str) -> list[str]:
    tree: Any = yaml.load(text, EditorLoader)  # noqa: S506 - a SafeLoader
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(tree)]


def test_the_file_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "schema"]) == 0
    assert SCHEMA.read_text(encoding="utf-8") == capsys.readouterr().out, "outdated; write it again: make schema"


@pytest.mark.parametrize("name", [*recipes.names(), *recipes.originals()])
def test_a_shipped_recipe_names_the_schema_and_follows_it(name: str, validator: Draft202012Validator) -> None:
    text = (recipes.RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    schema = "../" * name.count("/") + SCHEMA.name
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={schema}"
    assert faults(validator, text) == []


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("optim: {rate: 1}", "rate"),
        ("optim: {lr: fast}", "$.optim.lr"),
        ("data: {size: [96]}", "$.data.size"),
        ("train: {epochs: -1}", "$.train.epochs"),
        ("colour: blue", "colour"),
    ],
)
def test_a_mistake_is_marked_at_its_key(line: str, key: str, validator: Draft202012Validator) -> None:
    (fault,) = faults(validator, line)
    assert key in fault


def test_the_schema_is_no_recipe() -> None:
    assert SCHEMA.stem not in recipes.names()
