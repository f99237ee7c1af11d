"""Checkpoints of one's own code: what they carry, and that a stranger's checkpoint imports nothing without --trust."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from inputs import some
from own_package import forget, write_package

from depthray import models
from depthray.checkpoints import load, manifest, save
from depthray.checkpoints.load import CheckpointContents
from depthray.checkpoints.recorded_folder import seal
from depthray.config import own_code, recipe
from depthray.config.sections import Model
from depthray.errors import CheckpointError, UsageError
from depthray.evaluation import protocols
from depthray.runtimes.open import open_model
from depthray.training import preflight
from depthray.weights import start as weights

TRAP = "open('sprung', 'w')\n"
CPU = torch.device("cpu")
FILES = ["model.name=./mypkg/net.py", "loss.terms={./mypkg/losses.py:own_loss: 0.1}", "data.source=./mypkg/frames.py"]
MODULES = ["model.name=mypkg.net", "loss.terms.mypkg.losses.own_loss=0.1", "data.source=mypkg.frames"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget(monkeypatch, tmp_path)
    write_package(tmp_path)
    return tmp_path


@pytest.fixture
def stranger(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that makes a checkpoint, and leaves a process that was allowed nothing."""

    def make(overrides: list[str]) -> Path:
        options = ["model.width=8"] if "name" in overrides[0] else ["model.encoder=efficientnet_lite0"]
        read = recipe.read("demo-lite", [*overrides, *options])
        network = models.build_model(read.model, read.data.inputs)
        contents = CheckpointContents(dict(network.state_dict()), {}, read, {}, 0, 1, "")
        path = save.write(home / "checkpoints", contents)
        forget(monkeypatch, home)
        return path

    return make


def predicts(path: Path, **options: Any) -> bool:
    with torch.no_grad():
        prediction = models.run(open_model(path, device=CPU, **options).network.eval(), some(("image",)))
    return tuple(prediction["depth"].shape) == (2, 1, 64, 64)


def test_the_manifest_has_the_code_with_its_digest_and_the_files_of_it(stranger: Any, home: Path) -> None:
    record = manifest.verify(stranger(FILES))
    content = (home / "mypkg" / "net.py").read_bytes()
    (net, *others) = record.code
    assert (net.key, net.name, net.sha256) == ("model.name", "./mypkg/net.py", sha256(content).hexdigest())
    assert [(each.key, each.name) for each in others] == [
        ("data.source", "./mypkg/frames.py"),
        ("loss.terms", "./mypkg/losses.py:own_loss"),
    ]
    assert all(each.file in record.files for each in record.code)


def test_a_checkpoint_without_own_code_is_as_before(stranger: Any) -> None:
    tree = json.loads((stranger(["loss.l1=1"]) / manifest.NAME).read_bytes())
    assert tree["format"] == 1 and "code" not in tree


def test_a_file_is_never_run_without_trust(stranger: Any, home: Path) -> None:
    path = stranger(FILES)
    (home / "mypkg" / "net.py").write_text(TRAP)
    with pytest.raises(UsageError, match=r"code-net-\w+\.py: is code that comes with the model.* add --trust"):
        open_model(path, device=CPU)
    assert not (home / "sprung").exists()


def test_with_trust_the_copy_in_the_checkpoint_is_run(stranger: Any, home: Path) -> None:
    path = stranger(FILES)
    shutil.rmtree(home / "mypkg")
    assert predicts(path, trust=True)
    assert predicts(path)  # what is allowed once, is so in this process


def test_a_file_that_the_user_has_named_needs_no_trust(stranger: Any) -> None:
    path = stranger(FILES)
    own_code.allow(["./mypkg/net.py"])
    assert predicts(path)


def test_two_checkpoints_of_one_file_keep_their_own_code(stranger: Any, home: Path) -> None:
    first = stranger(FILES)
    source = home / "mypkg" / "net.py"
    source.write_text(source.read_text().replace("class OwnNet", "class Newer").replace("OwnNet(", "Newer("))
    source.write_text(source.read_text().replace("-> OwnNet", "-> Newer"))
    second = stranger(FILES)
    names = [type(open_model(path, device=CPU, trust=True).network).__name__ for path in (first, second)]
    assert names == ["OwnNet", "Newer"]


def test_a_module_of_the_current_folder_is_not_imported_without_trust(stranger: Any, home: Path) -> None:
    path = stranger(MODULES)
    sys.path.insert(0, str(home))  # as python -m does
    with pytest.raises(UsageError, match=r"no module 'mypkg.net' outside of the current folder\).* add --trust"):
        open_model(path, device=CPU)
    assert "mypkg" not in sys.modules
    assert predicts(path, trust=True)


def test_an_installed_module_is_imported_where_it_is_the_same(stranger: Any, home: Path, monkeypatch: Any) -> None:
    path = stranger(MODULES)
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    sys.path.append(str(home))
    assert predicts(path)
    forget(monkeypatch, home)
    monkeypatch.chdir(home / "elsewhere")
    sys.path.append(str(home))
    with (home / "mypkg" / "net.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(UsageError, match=r"net.py is not what the checkpoint was trained with, SHA-256 \w{12}\)"):
        open_model(path, device=CPU)
    assert "mypkg" not in sys.modules
    assert predicts(path, trust=True)


def test_a_file_of_the_current_folder_does_not_stand_for_an_installed_module(
    stranger: Any, home: Path, monkeypatch: Any
) -> None:
    path = stranger(MODULES)
    shutil.copytree(home / "mypkg", home / "archive" / "mypkg")
    (home / "archive" / "mypkg" / "net.py").write_text(TRAP)
    monkeypatch.chdir(home / "archive")
    sys.path[:] = [str(home / "archive"), *sys.path, str(home)]
    with pytest.raises(UsageError, match="add --trust"):
        open_model(path, device=CPU)
    assert not (home / "archive" / "sprung").exists()


def forge(path: Path, **changes: Any) -> Path:
    """The checkpoint with another recipe, its manifest as if it had been written with it."""
    text = (path / manifest.RECIPE).read_text()
    for old, new in changes["names"].items():
        text = text.replace(old, new)
    (path / manifest.RECIPE).write_text(text)
    tree = json.loads((path / manifest.NAME).read_bytes())
    tree["files"][manifest.RECIPE] = {"size": len(text.encode()), "sha256": sha256(text.encode()).hexdigest()}
    for record in tree["code"]:
        record |= {"name": changes["names"].get(record["name"], record["name"]), **changes.get("record", {})}
    tree.pop("digest")
    (path / manifest.NAME).write_bytes(seal(tree))
    return path


OTHERS = Path(os.__file__).with_name("pydoc_data") / "topics.py"  # written for something else
FORGED: list[dict[str, Any]] = [
    {
        "names": {"mypkg.net": "pydoc_data.topics"},
        "record": {"sha256": sha256(OTHERS.read_bytes()).hexdigest()},
    },
    {"names": {"mypkg.net": "./trap.py"}},
    {"names": {"mypkg.net": "trap.net"}},
    {"names": {"mypkg.net": "/etc/passwd.py"}},
]


@pytest.mark.parametrize("changes", FORGED, ids=lambda changes: next(iter(changes["names"].values())))
def test_a_forged_recipe_imports_nothing(stranger: Any, home: Path, changes: dict[str, Any]) -> None:
    path = forge(stranger(MODULES), **changes)
    (home / "trap.py").write_text(TRAP)
    with pytest.raises((UsageError, CheckpointError)):
        open_model(path, device=CPU)
    assert not (home / "sprung").exists() and not {"pydoc_data", "trap"} & set(sys.modules)


def test_a_manifest_names_no_file_outside_of_the_checkpoint(stranger: Any) -> None:
    path = forge(stranger(FILES), names={}, record={"file": "../net.py"})
    with pytest.raises(CheckpointError, match="damaged"):
        load.read_recipe(path, trust=True)


def test_predicting_needs_no_loss_and_no_source(stranger: Any, home: Path) -> None:
    path = stranger(FILES[1:])
    shutil.rmtree(home / "mypkg")
    assert predicts(path)
    assert own_code.names_in(load.read_recipe(path))[0][1].startswith(str(path))


def test_a_run_starts_from_weights_of_ones_own_network(stranger: Any, home: Path) -> None:
    path = stranger(FILES)
    again = recipe.read("demo-lite", [FILES[0], "model.width=8", f"model.weights={path}"])
    network = models.build_model(again.model, again.data.inputs)
    report = weights.start(network, again.model)
    assert report.can_predict("metric") and not report.random


def test_overrides_of_an_evaluation_are_named_by_the_user(stranger: Any, home: Path) -> None:
    path = stranger(FILES)
    read = recipe.override(load.read_recipe(path), ["eval.protocol=mypkg.protocols.NEAR"], where="r")
    assert protocols.of(read).name == "near"
    with pytest.raises(UsageError, match=r"data\.source=.*code-frames-\w+\.py: is code that comes with the model"):
        preflight.check(read.model_copy(update={"model": Model()}), where="r")
