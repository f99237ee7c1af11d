"""Code of one's own by dotted path, file path and entry point: what it makes, and one line for what is wrong."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from inputs import some
from own_package import forget, write_package

from depthray import losses, models
from depthray.__main__ import main
from depthray.config import own_code, recipe
from depthray.config.sections import Data, Loss, Model
from depthray.data import sources
from depthray.errors import UsageError
from depthray.evaluation import protocols
from depthray.training import preflight

WHOLE = {
    "module": ["model.name=mypkg.net", "loss.terms.mypkg.losses.own_loss=0.1", "eval.protocol=mypkg.protocols.NEAR"],
    "file": [
        "model.name=./mypkg/net.py",
        "loss.terms={./mypkg/losses.py:own_loss: 0.1}",
        "eval.protocol=./mypkg/protocols.py:NEAR",
    ],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a package of one's own in it."""
    forget(monkeypatch, tmp_path)
    write_package(tmp_path)
    return tmp_path


class _Point:
    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


def offer(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Entry points of an installed package, name=module[:object], in the group of each kind."""
    offered: dict[str, list[_Point]] = {about.group: [] for about in own_code.KINDS.values()}
    for key, value in points.items():
        kind, _, name = key.partition("_")
        offered[own_code.KINDS[kind].group].append(_Point(name, value))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: offered[group])


def test_a_recipe_of_ones_own_is_read_built_and_checked(home: Path) -> None:
    for overrides in WHOLE.values():
        read = preflight.load("demo-lite", [*overrides, "model.width=8"])
        network = models.build_model(read.model, read.data.inputs)
        prediction: Any = models.run(network, some(("image",), 2, 33, 47))
        assert prediction["depth"].shape == (2, 1, 33, 47)
        assert protocols.of(read).name == "near"
        batch: Any = {"depth": torch.full((2, 1, 33, 47), 2.0), "valid": torch.ones(2, 1, 33, 47, dtype=torch.bool)}
        _, terms = losses.total(prediction, batch, Loss(terms=read.loss.terms))
        assert [tuple(value.shape) for value in terms.values()] == [(2,)]


def test_the_options_of_another_architecture_do_not_stay(home: Path) -> None:
    read = recipe.read("demo-lite", ["model.encoder=resnet18", "model.name=mypkg.net", "model.width=8"])
    assert (read.model.options, read.model.weights) == ({"width": 8}, "")
    assert recipe.override(read, ["model.name=mypkg.net"], where="r").model == read.model


def test_options_are_those_of_build(home: Path) -> None:
    own_code.allow(["mypkg.net"])
    models.check(Model(name="mypkg.net", width=8), where="r.yaml")
    with pytest.raises(UsageError, match=r"unknown key 'model.wdith' \(did you mean 'width'\?\)"):
        models.check(Model(name="mypkg.net", wdith=8), where="r.yaml")
    with pytest.raises(UsageError, match=r"model.width='8': input should be a valid integer"):
        models.check(Model(name="mypkg.net", width="8"), where="r.yaml")


def test_entry_points_are_names_without_a_dot(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, model_mine="mypkg.net", protocol_near="mypkg.protocols:NEAR", loss_mine="mypkg.losses:own_loss")
    sys.path.append(str(home))  # as an installed package is found
    read = preflight.load("demo-lite", ["model.name=mine", "loss.terms.mine=0.1", "eval.protocol=near"])
    assert type(models.build_model(read.model, ("image",))).__name__ == "OwnNet"
    with pytest.raises(UsageError, match=r"no architecture 'mien' \(did you mean 'mine'\?\)"):
        preflight.load("demo-lite", ["model.name=mien"])


def test_terms_of_ones_own_are_keys_below_loss_terms(home: Path) -> None:
    read = recipe.read("demo-lite", ["loss.terms.mypkg.losses.own_loss=0.25", "loss.terms../a b/x.py:y=1"])
    assert read.loss.terms == {"mypkg.losses.own_loss": 0.25, "./a b/x.py:y": 1}
    assert recipe.build(yaml.safe_load(recipe.dump(read)), where="again") == read
    assert recipe.flatten(read)["loss.terms.mypkg.losses.own_loss"] == 0.25
    assert {read.loss, read.loss.model_copy(update={"terms": {}})} == {
        read.loss,
        Loss(**{**dict(read.loss), "terms": {}}),
    }
    with pytest.raises(UsageError, match=r"write loss\.l1=0\.5"):
        recipe.read("demo-lite", ["loss.terms.l1=0.5"])


CODE = {
    "empty.py": "",
    "misspelt.py": "def biuld(*, inputs):\n    return None\n",
    "required.py": "def build(*, width, inputs=('image',)):\n    return None\n",
    "positional.py": "def build(width=3):\n    return None\n",
    "raises.py": "import torch\n\nraise ValueError('two\\nlines')\n",
    "exits.py": "import sys\n\nsys.exit('bye')\n",
    "syntax.py": "def build(:\n",
    "lacks.py": "import no_such_package\n",
    "returns.py": "def build(*, inputs=('image',)):\n    return 3\n",
    "bare.py": "from torch import nn\n\n\ndef build(*, inputs=('image',)):\n    return nn.Identity()\n",
    "opener.py": "def open_source():\n    return None\n",
    "nothing.py": "def open_source(section):\n    return []\n",
    "terms.py": "import os\nabort = os.abort\n\n\ndef far(depth, distance):\n    return depth\n"
    "\n\ndef none():\n    return 0\n\n\ndef scalar(depth):\n    return depth.mean()\n",
    "rules.py": "from dataclasses import replace\nfrom depthray.evaluation.protocols import PLAIN\n"
    "THREE = 3\nTWIN = PLAIN\nODD = replace(PLAIN, name='a/b')\n",
}
FAULTS = [
    # what is overridden, what the one line says
    ("model.name=mypgk.net", r"Python finds no module 'mypgk.net' \(did you mean 'mypkg'\?\); it looks in"),
    ("model.name=mypkg.nte", r"no module 'mypkg.nte' \(did you mean 'mypkg.net'\?\)"),
    ("model.name=./retruns.py", r"no file retruns.py \(did you mean '\./returns.py'\?\)"),
    ("model.name=./mypkg", r"mypkg is no Python file"),
    ("model.name=./net.py:build2", r"model.name is a module or a file, whose function 'build' is called"),
    ("model.name=./empty.py", r"has no 'build'; model.name names a module with a function 'build', see docs"),
    ("model.name=./misspelt.py", r"has no 'build' \(did you mean 'biuld'\?\)"),
    ("model.name=./required.py", r"wrong signature \(missing a required argument: 'width'\); write def build"),
    ("model.name=./positional.py", r"wrong signature \(got an unexpected keyword argument 'inputs'\)"),
    ("model.name=./raises.py", r"importing it fails: .*raises.py:3: ValueError: two lines"),
    ("model.name=./exits.py", r"importing it fails: .*exits.py:3: SystemExit: bye"),
    ("model.name=./syntax.py", r"importing it fails: .*syntax.py:1: SyntaxError: "),
    ("model.name=./lacks.py", r"fails: .*lacks.py:1: ModuleNotFoundError: No module named 'no_such_package'"),
    ("data.source=./opener.py", r"data.source=./opener.py: wrong signature \(too many positional arguments\)"),
    ("data.source=mypkg.net", r"has no 'open_source'"),
    ("loss.terms.mypkg.losses.own_los=1", r"has no 'own_los' \(did you mean 'own_loss'\?\)"),
    ("loss.terms={./terms.py: 1}", r"which object of the file\? write \./terms.py:NAME"),
    ("loss.terms={./terms.py:abort: 1}", r"is builtin_function_or_method, not a function of Python"),
    ("loss.terms={./terms.py:far: 1}", r"wrong signature \(missing a required argument: 'distance'\)"),
    ("loss.terms={./terms.py:none: 1}", r"takes nothing that a network predicts"),
    ("loss.terms.mine=1", r"loss.terms=mine: no loss term 'mine'"),
    ("eval.protocol=./rules.py:THREE", r"is int, not a Protocol"),
    ("eval.protocol=./rules.py:TWIN", r"its name 'plain' is one of depthray"),
    ("eval.protocol=./rules.py:ODD", r"its name 'a/b' is no name of a file"),
    ("eval.protocol=mypkg.protocols.NAER", r"has no 'NAER' \(did you mean 'NEAR'\?\)"),
]


@pytest.mark.parametrize(("override", "line"), FAULTS, ids=[override for override, _ in FAULTS])
def test_a_mistake_is_one_line(home: Path, override: str, line: str) -> None:
    for name, text in CODE.items():
        (home / name).write_text(text)
    with pytest.raises(UsageError, match=line) as caught:
        preflight.load("demo-lite", [override], training=False)
    assert "\n" not in str(caught.value)
    assert not any(name.startswith("depthray_own_raises") for name in sys.modules)  # what failed is tried again


def test_what_a_function_returns_is_looked_at(home: Path) -> None:
    for name, text in CODE.items():
        (home / name).write_text(text)
    own_code.allow(["./returns.py", "./bare.py", "./nothing.py", "./terms.py:scalar"])
    with pytest.raises(UsageError, match=r"build returned int, not a torch.nn.Module"):
        models.build_model(Model(name="./returns.py"), ("image",))
    with pytest.raises(UsageError, match=r"needs self.inputs.* and stride"):
        models.build_model(Model(name="./bare.py"), ("image",))
    with pytest.raises(UsageError, match=r"open_source returned list, which has no 'frames'"):
        sources.open_source(Data(source="./nothing.py"))
    batch: Any = {"depth": torch.ones(2, 1, 4, 4), "valid": torch.ones(2, 1, 4, 4, dtype=torch.bool)}
    with pytest.raises(UsageError, match=r"returned \(\) of 2 images; return a tensor \(2,\)"):
        losses.total({"depth": torch.ones(2, 1, 4, 4)}, batch, Loss(terms={"./terms.py:scalar": 1.0}))


BUILD = """
from torch import nn


class Net(nn.Module):
    stride, inputs = 1, ("image",)

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, batch):
        return {"depth": self.lyaer(batch["image"])}


def build(*, fails=False, inputs=("image",)):
    return {}["nothing"] if fails else Net()
"""


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["model.fails=true"], "model.name=./net.py: build fails: .*net.py:16: KeyError: 'nothing'"),
        ([], "the first step fails: .*net.py:12: AttributeError: 'Net' object has no attribute 'lyaer'"),
    ],
)
def test_what_fails_before_the_first_step_leaves_no_run(
    options: list[str], line: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "net.py").write_text(BUILD.lstrip())
    assert main(["train", "demo", "model.name=./net.py", *options, "data.size=32,32", "--local", "--out", "run"]) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert re.search(line, printed), printed
    assert not (home / "run").exists()


def test_nothing_is_imported_that_was_not_named(home: Path) -> None:
    (home / "trap.py").write_text("open('sprung', 'w')\n\n\ndef build(*, inputs=('image',)):\n    return None\n")
    for name in ("./trap.py", "trap.net", "mypkg.net", "os.path"):
        with pytest.raises(UsageError, match="add --trust"):
            models.build_model(Model(name=name), ("image",))
    with pytest.raises(UsageError, match="add --trust"):
        preflight.check(recipe.build({"model": {"name": "./trap.py"}}, where="r"), where="r")
    assert not (home / "sprung").exists()


def test_a_file_is_what_it_was_when_it_was_named(home: Path) -> None:
    path = home / "mypkg" / "net.py"
    own_code.allow(["./mypkg/net.py"])
    before = own_code.share()
    path.write_text("raise SystemExit\n")
    models.builder("./mypkg/net.py")  # as it was
    own_code.allow(["./mypkg/net.py"])
    with pytest.raises(UsageError, match="SystemExit"):
        models.builder("./mypkg/net.py")
    path.unlink()
    own_code.receive(before)  # a worker needs no file
    assert models.builder("./mypkg/net.py").__module__.startswith("depthray_own_net_")


def test_a_worker_in_another_folder_finds_the_package(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_code.allow(["mypkg.net"])
    shared = own_code.share()
    assert shared.path == (str(home),)
    (home / "elsewhere").mkdir()
    forget(monkeypatch, home)
    monkeypatch.chdir(home / "elsewhere")
    own_code.receive(shared)
    assert models.builder("mypkg.net").__module__ == "mypkg.net"


def test_a_command_says_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo-lite", "model.name=./nte.py", "--local", "--out", "run"]) == 2
    assert capsys.readouterr().err.splitlines() == ["depthray: demo-lite: model.name=./nte.py: no file nte.py"]
    assert not (home / "run").exists()
