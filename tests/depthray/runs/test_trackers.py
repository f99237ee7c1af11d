"""`--log`: MLflow and Weights & Biases get the run's numbers, offline, and a failure of theirs ends no run."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest

from depthray.cli import train
from depthray.errors import UsageError
from depthray.runs import trackers


@pytest.fixture
def wandb(monkeypatch):
    """A package in place of Weights & Biases, which keeps what it is given."""
    kept = SimpleNamespace(init=None, logged=[], finished=0)

    def init(**options):
        kept.init = options
        return SimpleNamespace(
            log=lambda values, step: kept.logged.append((step, values)),
            finish=lambda: setattr(kept, "finished", kept.finished + 1),
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))
    monkeypatch.setattr(trackers, "find_spec", lambda name: name == "wandb")
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(trackers.VARIABLE, "csv,wandb")
    return kept


def test_a_run_is_logged_offline_in_its_own_folder(wandb, tmp_path):
    tracked = trackers.Trackers(tmp_path / "first", {"optim.lr": 3e-4}, pytest.fail)
    assert wandb.init is None  # not before there is anything to log
    tracked.log(4, {"train/loss": 0.5, "val/rmse": math.nan})
    tracked.log(8, {"train/loss": 0.25})
    tracked.close()
    tracked.close()
    chosen = {key: wandb.init[key] for key in ("name", "dir", "mode", "project", "config")}
    assert chosen == {
        **{"name": "first", "dir": str(tmp_path / "first"), "mode": "offline", "project": "depthray"},
        "config": {"optim.lr": 3e-4},
    }
    assert wandb.logged == [(4, {"train/loss": 0.5}), (8, {"train/loss": 0.25})] and wandb.finished == 1


def test_a_tracker_that_fails_is_noted_once_and_left_out(wandb, tmp_path, monkeypatch):
    notes: list[str] = []

    def fail(**options):
        raise ConnectionError("no\nserver")

    monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    tracked = trackers.Trackers(tmp_path, {}, notes.append)
    for step in range(3):
        tracked.log(step, {"train/loss": 1.0})
    tracked.close()
    assert notes == ["wandb failed and is not written any more: no server"] and wandb.logged == []


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_the_packages_themselves_write_below_the_run(name, tmp_path, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setenv(trackers.VARIABLE, name)
    tracked = trackers.Trackers(tmp_path, {"optim.lr": 3e-4, "data.size": [32, 64]}, pytest.fail)
    tracked.log(1, {"train/loss": 0.5})
    tracked.close()
    assert list(tmp_path.rglob("*.wandb" if name == "wandb" else "loss"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "tensorbord",
            r"--log: no 'tensorbord' \(did you mean 'tensorboard'\?\); choose from tensorboard, csv, mlflow",
        ),
        ("csv,mlflow", r"--log: mlflow is not installed: pip install 'depthray\[mlflow\]'"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_made(names, message, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=message):
        train.main(["demo", "--local", "--log", names, "--out", str(tmp_path / "run")], pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_names_are_read_and_tensorboard_and_csv_are_the_default(monkeypatch):
    monkeypatch.delenv(trackers.VARIABLE, raising=False)
    assert trackers.chosen() == trackers.DEFAULT
    assert trackers.parse("csv, tensorboard,csv", where="--log") == ("csv", "tensorboard")
    assert trackers.parse("", where="--log") == ()
