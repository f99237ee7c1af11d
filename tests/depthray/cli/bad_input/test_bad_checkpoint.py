"""Damaged, hostile and missing checkpoints through the command line: an exit code and one line on stderr."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from bad_input import Fails, Harm, cut, flip, only
from checkpoints import Hostile, reseal

from depthray.__main__ import main
from depthray.checkpoints import load, save
from depthray.training.state import begin

NEITHER = "neither a checkpoint nor a run folder"


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


CHECKPOINT_HARMS: list[tuple[Harm, str]] = [
    (lambda path: cut(path / "model.safetensors"), "model.safetensors: "),
    (lambda path: cut(path / "state.pt"), "state.pt: "),
    (lambda path: flip(path / "recipe.yaml"), "recipe.yaml: damaged"),
    (lambda path: flip(path / "manifest.json"), "manifest.json: damaged"),
    (lambda path: (path / "metrics.json").unlink(), "metrics.json is missing"),
    (lambda path: (path / "recipe.yaml").unlink(), "recipe.yaml is missing"),
    (empty, "has no manifest.json"),
]


@pytest.mark.parametrize(("harm", "message"), CHECKPOINT_HARMS)
def test_damaged_checkpoint(fails: Fails, run: Path, image: Path, harm: Harm, message: str) -> None:
    path = only(run)
    harm(path)
    fails(3, "predict", path, image, "--out", run / "out", message=message)
    fails(3, "evaluate", path, message=message)
    fails(3, "train", "--local", "--out", run, "--resume", "train.epochs=2", message="none of 1 checkpoints is good")


def test_damaged_training_state_ends_a_resumed_run_only(fails: Fails, run: Path, image: Path) -> None:
    path = only(run)
    flip(path / "state.pt")
    assert main(["predict", str(path), str(image), "--out", str(run / "out")]) == 0
    assert main(["evaluate", str(path)]) == 0
    fails(3, "train", "--local", "--out", run, "--resume", "train.epochs=2", message="none of 1 checkpoints is good")


def test_damaged_recipe_of_a_checkpoint_found_through_its_run(fails: Fails, run: Path, image: Path) -> None:
    flip(only(run) / "recipe.yaml")
    fails(3, "predict", run, image, message="recipe.yaml: damaged")


def test_resume_goes_back_to_the_checkpoint_before(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = only(run)
    shutil.copytree(good, good.with_name("epoch-0002-step-00000004"))
    cut(good.with_name("epoch-0002-step-00000004") / "state.pt")
    assert main(["train", "--local", "--out", str(run), "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "going back to the checkpoint before" in printed and f"resumed from {good.name}" in printed


@pytest.mark.parametrize("name", ["state.pt", "model.safetensors"])
def test_hostile_pickle(fails: Fails, run: Path, name: str) -> None:
    path, mark = only(run), run / "mark"
    (path / name).write_bytes(pickle.dumps(Hostile(mark)))
    fails(3, "evaluate", path, message=f"{name}: ")
    reseal(path)
    fails(3, "train", "--local", "--out", run, "--resume", "train.epochs=2", message=f"{name}: ")
    assert not mark.exists()


def test_checkpoint_of_another_architecture(fails: Fails, run: Path, image: Path) -> None:
    path = only(run)
    contents = load.load(path, state=True)
    other = contents.recipe.model_copy(update={"model": contents.recipe.model.model_copy(update={"decoder": "linear"})})
    shutil.rmtree(path)
    written = begin(other, torch.device("cpu")).contents({"abs_rel": 1.0}, fingerprint=contents.fingerprint)
    path = save.write(run / "checkpoints", written)
    fails(3, "train", "--local", "--out", run, "--resume", message=("does not fit this recipe", "decoder"))
    (path / "recipe.yaml").write_bytes((run / "recipe.yaml").read_bytes())
    reseal(path)
    fails(3, "predict", path, image, message="weights do not fit the recipe")
    fails(3, "evaluate", path, message="weights do not fit the recipe")


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_no_checkpoint(fails: Fails, trained: Path, image: Path, file: Path, data: Path, command: str) -> None:
    images = [image] if command == "predict" else []
    for path in (file.with_name("nowhere"), file, data, only(trained) / "model.safetensors"):
        fails(3, command, path, *images, message=(str(path), NEITHER))
