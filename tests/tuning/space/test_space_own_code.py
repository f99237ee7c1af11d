"""A search over networks and loss terms of one's own: named by the space, checked before the first trial."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_package import forget, write_package

from depthray.config import own_code
from depthray.errors import UsageError
from depthray.training import preflight
from tuning.space import space, space_check

TERM = "loss.terms.mypkg.losses.own_loss"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget(monkeypatch, tmp_path)
    write_package(tmp_path)
    return tmp_path


def test_networks_and_terms_of_ones_own_are_searched() -> None:
    searched = space.parse({"model.name": {"choice": ["unet", "./mypkg/net.py"]}, TERM: {"uniform": [0, 1]}}, where="s")
    assert space.own_names(searched) == ["unet", "./mypkg/net.py", "mypkg.losses.own_loss", "mypkg.losses.own_loss"]
    own_code.allow(space.own_names(searched))
    recipe = preflight.load("demo", ["model={name: unet}", "data.size=32,32"])
    space_check.check(searched, recipe, where="s")


def test_a_mistake_in_a_name_is_found_before_the_search() -> None:
    searched = space.parse({TERM[:-1]: {"uniform": [0, 1]}}, where="s")
    own_code.allow(space.own_names(searched))
    with pytest.raises(UsageError, match=r"has no 'own_los' \(did you mean 'own_loss'\?\)"):
        space_check.check(searched, preflight.load("demo", ["data.size=32,32"]), where="s")
