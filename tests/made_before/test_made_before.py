"""Runs, a search and a served model made by version 0.1.0: resumed, scored, listed and reported as that version did.

expected.json is what that version said; README.md says how everything was made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import observe
import pytest
import yaml

import depthray
from depthray.__main__ import main
from depthray.config import recipe as recipes

MADE = Path(__file__).parent / "v0.1.0"
EXPECTED = json.loads((MADE / "expected.json").read_text(encoding="utf-8"))
ROOMS = MADE / "rooms"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> observe.Command:
    def run(arguments: Sequence[str]) -> str:
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return run


def copied(name: str, tmp_path: Path) -> Path:
    """A copy of something made before, as commands may write into it."""
    return Path(shutil.copytree(MADE / name, tmp_path / name))


def near(value: Any) -> Any:
    """What a computed value must be: the same but for rounding, which differs between processors."""
    if isinstance(value, dict):
        return {key: near(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [near(inner) for inner in value]
    return pytest.approx(value, rel=1e-4, abs=1e-6)


def comments_and_keys(text: str) -> tuple[list[str], dict[str, Any]]:
    """The comments of a recipe file, and what it means: a key that it lacks has the value of the version it is of."""
    comments = [line for line in text.splitlines() if line.startswith("#")]
    return comments, recipes.flatten(recipes.build(yaml.safe_load(text), where="best.yaml"))


@pytest.mark.parametrize("kind", ["runs", "searches"])
def test_states_epochs_and_scores_are_listed_as_before(kind: str, command: observe.Command, tmp_path: Path) -> None:
    assert observe.listed(command, copied(kind, tmp_path)) == EXPECTED[kind]


@pytest.mark.parametrize("run", ["finished", "stopped", "diverged"])
def test_a_run_is_shown_with_its_checkpoints(run: str, command: observe.Command, tmp_path: Path) -> None:
    folder = copied(f"runs/{run}", tmp_path)
    shown = command(["runs", "show", str(folder)])
    row = EXPECTED["runs"][run]
    assert row["state"] in shown and f"{row['done']} of {row['of']}" in shown
    for checkpoint in folder.glob("checkpoints/*"):
        assert checkpoint.name in shown
        score = json.loads((checkpoint / "metrics.json").read_text()).get(row["metric"])
        assert score is None or f"{score:.4f}" in shown


def test_a_stopped_run_resumes_to_the_weights_it_ended_with_before(command: observe.Command, tmp_path: Path) -> None:
    run = copied("runs/stopped", tmp_path)
    resumed = observe.resumed(command, run, "--data", str(ROOMS))
    observe.check_resumed(resumed, EXPECTED["resumed"], EXPECTED["processor"])
    row = observe.listed(command, run.parent)["stopped"]
    assert (row["state"], row["done"], row["of"]) == ("finished", 3, 3)


def test_a_trial_on_rendered_scenes_resumes_to_the_weights_it_ended_with_before(
    command: observe.Command, tmp_path: Path
) -> None:
    run = copied("searches/killed/trials/0001", tmp_path)
    before = EXPECTED["killed_resumed"]
    expected = {"weights": before["weights"], "epochs": before["trials"]["0001"]["epochs"]}
    observe.check_resumed(observe.resumed(command, run), expected, EXPECTED["processor"])


def test_a_checkpoint_scores_as_before(command: observe.Command, tmp_path: Path) -> None:
    run = copied("runs/finished", tmp_path)
    scores = observe.scores(command, run, tmp_path / "scores", "--data", str(ROOMS))
    assert scores == near(EXPECTED["scores"])


def test_the_winner_of_a_search_scores_as_before(command: observe.Command, tmp_path: Path) -> None:
    winner = copied("searches/ended", tmp_path) / "trials" / "0000"
    assert observe.scores(command, winner, tmp_path / "scores") == near(EXPECTED["mask_scores"])


def test_a_checkpoint_predicts_as_before(command: observe.Command, tmp_path: Path) -> None:
    run = copied("runs/finished", tmp_path)
    assert observe.predicted(command, run, tmp_path / "predicted") == near(EXPECTED["predicted"])
    depth = depthray.load(run).predict(observe.photograph())
    assert observe.cells(np.asarray(depth)) == near(EXPECTED["predicted"])


@pytest.mark.parametrize("search", ["ended", "killed"])
def test_a_search_is_reported_with_the_same_table(search: str, command: observe.Command, tmp_path: Path) -> None:
    report = observe.report(command, copied(f"searches/{search}", tmp_path))
    before = EXPECTED[search]
    assert report["csv"] == before["csv"]
    assert report["table"] == before["table"]
    assert comments_and_keys(report["best"]) == comments_and_keys(before["best"])
    assert list(yaml.safe_load(before["best"])) == list(yaml.safe_load(report["best"]))
