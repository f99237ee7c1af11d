"""`depthray runs`: what it prints of runs and searches, and what it removes, here and on a store."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from depthray.__main__ import main
from depthray.checkpoints import load
from depthray.runs import listing, locate, progress
from depthray.runs.layout import STOP
from depthray.runs.run import prepare, record
from depthray.storage.folders import open_folder
from depthray.training import preflight

SMALL = ["data.size=32,64", "data.frames=24", "train.batch_size=8", "train.epochs=3", "train.precision=fp32"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs with all its checkpoints, trained for real."""
    run = tmp_path_factory.mktemp("trained") / "first"
    made = preflight.load("demo", [*SMALL, "train.keep_best=3"])
    prepare(run, made, resume=False)
    for _ in record(made, run, torch.device("cpu")):
        pass
    return run


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A folder of runs with a copy of it."""
    shutil.copytree(trained, tmp_path / "runs" / "first")
    return tmp_path / "runs"


def listed(where: Path | str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["runs", "list", str(where), "--json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def age(run: Path, seconds: float) -> None:
    """Make a run's lines older."""
    lines = [json.loads(line) for line in (run / progress.FILE).read_text().splitlines()]
    older = [{**line, "time": line["time"] - seconds} for line in lines]
    (run / progress.FILE).write_text("".join(json.dumps(line) + "\n" for line in older))


def cut(run: Path, lines: int) -> None:
    """Take away the last lines of a run, as if it had not come so far."""
    kept = (run / progress.FILE).read_text().splitlines(keepends=True)[:-lines]
    (run / progress.FILE).write_text("".join(kept))


def test_a_run_that_ended_is_shown_with_its_best_score(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = listed(place, capsys).values()
    scores = [json.loads(file.read_text())["abs_rel"] for file in place.glob("first/checkpoints/*/metrics.json")]
    assert (row["state"], row["done"], row["of"], row["recipe"]) == ("finished", 3, 3, "demo")
    assert row["score"] == min(scores)
    assert row["size"] == sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    assert 0 <= row["age"] < 300
    assert main(["runs", "list", str(place)]) == 0
    title, line = capsys.readouterr().out.splitlines()
    assert title.split()[:3] == ["name", "recipe", "state"] and "3/3 epochs" in line and "finished" in line


def test_states_follow_what_the_run_left(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "first"

    def state() -> tuple[str, str]:
        row = listed(place, capsys)["first"]
        return row["state"], row["why"]

    def record_state(state: Any, reason: str) -> None:
        text = "whatever people read"
        progress.append(run, progress.state_record(progress.RecordedState(state, reason), text, epoch=2, step=4))

    assert state() == ("finished", "all epochs done")
    record_state("running", "")
    assert state() == ("running", "")
    cut(run, 3)  # both states and the last epoch
    assert state() == ("running", "")
    (run / STOP).touch()
    assert state() == ("running", "asked to stop")
    age(run, 1000)
    assert state()[0] == "stopped"
    (run / STOP).unlink()
    assert state()[0] == "silent"
    record_state("stopped", "asked to stop")
    assert state() == ("stopped", "asked to stop")
    record_state("stopped", "time limit of 5 minutes")
    assert state() == ("stopped", "time limit of 5 minutes")
    record_state("failed", "the loss is not finite")
    assert state() == ("failed", "the loss is not finite")


def test_a_stopped_run_really_writes_what_is_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, made = tmp_path / "runs" / "a", preflight.load("demo", SMALL)
    prepare(run, made, resume=False)
    for _ in record(made, run, torch.device("cpu")):
        assert main(["runs", "stop", str(run)]) == 0
    assert "was asked to stop" in capsys.readouterr().out
    row = listed(tmp_path / "runs", capsys)
    assert row["a"]["state"] == "stopped" and row["a"]["done"] == 1
    assert main(["runs", "stop", str(run)]) == 0
    assert "does not run: stopped" in capsys.readouterr().out


def test_names_that_begin_alike_and_folders_between_are_distinguished(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "first", place / "first-b")
    shutil.copytree(place / "first", place / "deep" / "er")
    (place / "empty").mkdir()
    assert list(listed(place, capsys)) == ["deep/er", "first", "first-b"]
    assert list(listed(place / "first", capsys)) == ["first"]
    assert main(["runs", "list", str(place / "empty")]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_a_run_whose_recipe_is_broken_does_not_hide_the_others(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place / "first", place / "old")
    (place / "old" / "recipe.yaml").write_text("model: [")
    rows = listed(place, capsys)
    assert rows["old"]["state"] == "unreadable" and rows["first"]["state"] == "finished"
    assert main(["runs", "list", str(place)]) == 0
    assert main(["runs", "show", str(place / "old")]) == 2


def test_show_prints_what_differs_the_best_checkpoint_and_how_to_continue(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "first"
    cut(run, 2)
    age(run, 1000)
    assert main(["runs", "show", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "train.epochs=3  (there: 16)" in printed and "data.size=[32, 64]" in printed
    best = locate.resolve(run).name
    assert next(line for line in printed.splitlines() if f"  {best}" in line).split("MB")[1].split()[0] == "best"
    assert f"depthray runs resume {run}" in printed and "silent: " in printed


@pytest.mark.parametrize("remote", [False, True])
def test_clean_keeps_the_best_and_the_last_and_what_is_evaluated(
    place: Path, remote: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "first"
    where = f"file://{run}" if remote else str(run)
    saved = listing.open_run(run).checkpoints
    best = locate.resolve(run).name
    for extra in ("ray/attempt-1/x", "checkpoints/.tmp-1/model.safetensors", "evaluations/v/evaluation.json"):
        (run / extra).parent.mkdir(parents=True)
        (run / extra).write_text("x" * 1000)
    (run / "checkpoints" / "epoch-0009-step-00000099").mkdir()
    (run / "checkpoints" / "epoch-0009-step-00000099" / "state.pt").write_text("torn")
    before = sorted(run.rglob("*"))
    assert main(["runs", "clean", "--dry-run", where]) == 0
    would = capsys.readouterr().out
    assert sorted(run.rglob("*")) == before
    assert main(["runs", "clean", where]) == 0
    assert capsys.readouterr().out == would.replace("would remove", "removed").replace("would free", "freed")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {best, saved[-1].name}
    assert not (run / "ray").exists() and (run / "evaluations" / "v" / "evaluation.json").exists()
    load.load(locate.resolve(run), state=True)


def test_a_run_that_may_be_going_on_is_not_cleaned(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "first"
    cut(run, 2)
    before = sorted(run.rglob("*"))
    for seconds in (0, 1000):  # running; silent, perhaps in a long validation
        age(run, seconds)
        assert main(["runs", "clean", str(run)]) == 2
        assert main(["runs", "clean", "--all", "--yes", str(run)]) == 2
    assert sorted(run.rglob("*")) == before
    age(run, 3600)
    assert main(["runs", "clean", str(run)]) == 0


def test_all_asks_for_confirmation_and_takes_a_run_only(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place / "first"
    assert main(["runs", "clean", "--all", "--yes", str(place)]) == 2  # a folder of runs is none
    assert main(["runs", "clean", "--all", str(run)]) == 2
    assert "nobody to ask" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert main(["runs", "clean", "--all", str(run)]) == 0 and run.exists()
    assert main(["runs", "clean", "--all", "--yes", str(run), str(place / "none")]) == 2 and run.exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert main(["runs", "clean", "--all", str(run)]) == 0 and not run.exists() and place.exists()


def test_a_store_is_read_as_a_folder_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = listed(place, capsys)["first"], listed(f"file://{place}", capsys)["first"]
    differing = {key for key in here if here[key] != there[key]} - {"age"}
    assert differing == {"folder"} and there["folder"] == f"file://{place}/first"
    assert main(["runs", "show", f"file://{place}/first"]) == 0
    url = f"file://{place}"
    assert open_folder(url).names() == open_folder(place).names() == ["first/"]


def test_resume_continues_the_run_itself(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "first"
    cut(run, 2)
    assert main(["runs", "resume", str(run), "--local"]) == 2  # running, by its last line
    age(run, 1000)
    shutil.rmtree(sorted((run / "checkpoints").iterdir())[-1])
    before = {path.name for path in (run / "checkpoints").iterdir()}
    assert main(["runs", "resume", str(run), "--local"]) == 0
    assert "resumed from" in capsys.readouterr().out
    assert before < {path.name for path in (run / "checkpoints").iterdir()}


def search(place: Path) -> Path:
    """A search of two trials, one of which has ended, as `depthray tune` leaves it on disk."""
    folder = place / "tune-demo"
    for name, state in (("0001", "done"), ("0002", "running")):
        shutil.copytree(place / "first", folder / "trials" / name)
        (folder / "trials" / name / "trial.json").write_text(json.dumps({"state": state}))
    (folder / "trials" / "0003").mkdir()
    (folder / "trials" / "0003" / "trial.json").write_text(json.dumps({"state": "waiting"}))
    shutil.copy(place / "first" / "recipe.yaml", folder)
    settings = {"trials": 16, "metric": "abs_rel", "started": time.time(), "ended": 0.0}
    (folder / "search.json").write_text(json.dumps(settings))
    return folder


def test_a_search_is_one_line_and_its_trials_are_cleaned(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = search(place)
    rows = listed(place, capsys)
    assert list(rows) == ["first", "tune-demo"]
    row = rows["tune-demo"]
    assert (row["kind"], row["state"], row["done"], row["of"]) == ("search", "running", 1, 16)
    assert row["score"] == rows["first"]["score"]
    assert main(["runs", "show", str(folder)]) == 0
    assert "0001  done  abs_rel" in (printed := capsys.readouterr().out) and "0003  waiting  no score yet" in printed
    assert main(["runs", "stop", str(folder)]) == 2 and not (folder / STOP).exists()
    assert main(["runs", "clean", str(folder)]) == 2
    settings = json.loads((folder / "search.json").read_text())
    (folder / "search.json").write_text(json.dumps({**settings, "ended": time.time()}))
    assert main(["runs", "clean", str(folder)]) == 0
    assert len(list((folder / "trials" / "0001" / "checkpoints").iterdir())) <= 2
    capsys.readouterr()
    assert listed(place, capsys)["tune-demo"]["state"] == "finished"


def test_files_removed_while_they_are_listed_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the parts of a checkpoint do, whose folder gets its name when all are there."""
    (tmp_path / "here").write_bytes(b"12")
    monkeypatch.setattr("depthray.storage.folders.os.walk", lambda path: [(str(path), [], ["gone", "here"])])
    assert open_folder(tmp_path).files() == {"here": 2}
