"""A folder in which no step was trained is free for another run, and nothing of a failed start stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from depthray.config.recipe import read
from depthray.errors import UsageError
from depthray.runs import progress, untrained
from depthray.runs.progress import RecordedState, state_record
from depthray.runs.run import prepare

FIRST, SECOND = read("demo", ["optim.lr=0.2"]), read("demo", ["optim.lr=0.1"])
FAILED = state_record(RecordedState("failed", "no memory"), "failed: no memory", epoch=0, step=0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    prepare(tmp_path / "run", FIRST, resume=False)
    return tmp_path / "run"


def age(run: Path) -> None:
    before = time.time() - 2 * untrained.STARTING
    os.utime(run / "recipe.yaml", (before, before))


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_without_a_step_is_taken(run: Path, resume: bool) -> None:
    age(run)
    prepare(run, SECOND, resume=resume)
    assert read(str(run / "recipe.yaml")) == SECOND


def test_what_the_failed_attempt_left_is_removed(run: Path) -> None:
    progress.append(run, FAILED)
    (run / "ray").mkdir()
    prepare(run, SECOND, resume=False)
    assert sorted(os.listdir(run)) == ["checkpoints", "recipe.yaml"]


def test_a_folder_with_a_step_is_not_taken(run: Path) -> None:
    progress.append(run, {"kind": "interval", "epoch": 1, "step": 1})
    progress.append(run, FAILED)
    age(run)
    with pytest.raises(UsageError, match="already holds a run"):
        prepare(run, SECOND, resume=False)
    with pytest.raises(UsageError, match=r"optim\.lr was 0\.2, is 0\.1"):
        prepare(run, SECOND, resume=True)


def test_a_run_that_is_starting_is_not_taken(run: Path) -> None:
    with pytest.raises(UsageError, match="already holds a run"):
        prepare(run, SECOND, resume=False)
    age(run)
    progress.append(run, state_record(RecordedState("running", ""), "training starts", epoch=0, step=0))
    with pytest.raises(UsageError, match="already holds a run"):
        prepare(run, SECOND, resume=False)


def test_discard_removes_what_a_run_makes_and_nothing_else(run: Path) -> None:
    (run / "notes.txt").touch()
    untrained.discard(run)
    assert os.listdir(run) == ["notes.txt"]
    (run / "notes.txt").unlink()
    prepare(run, FIRST, resume=False)
    untrained.discard(run)
    assert not run.exists()


@pytest.mark.parametrize("record", [FAILED, {"kind": "interval", "epoch": 1, "step": 1}])
def test_discard_keeps_what_can_be_read_or_resumed(run: Path, record: progress.Record) -> None:
    progress.append(run, record)
    untrained.discard(run)
    assert (run / "recipe.yaml").exists() and (run / "progress.jsonl").exists()
