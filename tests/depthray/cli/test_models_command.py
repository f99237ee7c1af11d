"""`depthray models`: a row for each architecture and variant, with true figures."""

import json

import pytest

from depthray import models
from depthray.cli import models as models_command
from depthray.config import recipe as recipes
from depthray.config.sections import Model
from depthray.training import preflight


@pytest.fixture(scope="module")
def rows():
    return {(row.architecture, row.variant): row for row in models_command.rows()}


def test_every_architecture_and_variant_has_a_row(rows):
    assert {name for name, variant in rows if not variant} == set(models.names())
    assert ("depthnet", "depthnet-original") in rows
    assert len(rows) == sum(1 + len(models_command.variants_of(name)) for name in models.names())


@pytest.mark.parametrize(
    ("name", "variant", "inputs", "stride", "output", "parameters"),
    [
        ("unet", "", ["image"], 1, 224, 23_645_697),
        ("depthnet", "depthnet-original", ["image", "sparse"], 64, 224, 7_929_221),
        ("dpt", "", ["image"], 14, 224, 24_785_089 - 384 - 73_856),
        ("fpn", "", ["image"], 1, 56, 45_402_561),
    ],
)
def test_figures_are_true(rows, name, variant, inputs, stride, output, parameters):
    row = rows[name, variant]
    assert row.inputs == inputs
    assert row.stride == stride
    assert row.output == [output, output]
    assert row.parameters == parameters


def test_every_recipe_is_under_its_architecture(rows):
    used = [(recipe, row.architecture) for row in rows.values() for recipe in row.recipes]
    assert sorted(used) == [(name, preflight.load(name).model.name) for name in recipes.names()]
    assert "demo" in rows["unet", "unet-tiny"].recipes


@pytest.mark.parametrize(
    ("options", "variant"),
    [
        ({}, ""),
        ({"norm": "none"}, "depthnet-no-norm"),
        ({"norm": "none", "stacking": "original", "head": "elu", "dropout": 0.1}, "depthnet-original"),
        ({"stacking": "original"}, ""),
    ],
)
def test_a_recipe_is_the_variant_that_matches_most_of_it(options, variant):
    assert models_command._variant(Model(name="depthnet", **options)) == variant


def test_no_weights_are_made(monkeypatch):
    devices: set[str] = set()
    build = models.build_model

    def watched(*arguments):
        network = build(*arguments)
        devices.update(parameter.device.type for parameter in network.parameters())
        return network

    monkeypatch.setattr(models, "build_model", watched)
    models_command.rows()
    assert devices == {"meta"}


def test_table_shows_name_size_and_recipe(capsys):
    assert models_command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.split()[:1] == ["unet-tiny"]]
    assert line.split() == ["unet-tiny", "encoder=tiny", "image", "1", "224x224", "391,217", "demo"]
    assert max(len(line) for line in lines) <= models_command.WIDTH


def test_json_is_the_same_rows(rows, capsys):
    assert models_command.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [row._asdict() for row in rows.values()]
