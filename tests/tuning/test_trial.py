"""A trial on several workers passes on what Ray Train reports of each epoch, and fills the gaps of lost reports."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checkpoints import write_checkpoint
from torch import nn

from cluster.resources import Workers
from depthray.checkpoints import select
from depthray.config.overrides import read_yaml
from depthray.errors import DepthrayError
from depthray.exporting import fastest
from depthray.runs import layout, progress
from depthray.training import preflight
from tuning import trial

RECIPE = preflight.load("demo", ["train.epochs=4"])


class LocalReports:
    """`cluster.reports.EpochReports` without a cluster."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.callback = self._queue.put

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._queue.get, None)

    def close(self) -> None:
        self._queue.put(None)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Iterator[dict[str, Any]]]:
    """Train a trial on pretended workers, which record these epochs and report those of them that are not lost."""
    monkeypatch.setattr("cluster.reports.EpochReports", LocalReports)

    def run(
        *epochs: int, lost: tuple[int, ...] = (), error: Exception | None = None, until_stopped: bool = False
    ) -> Iterator[dict[str, Any]]:
        def fit(recipe: Any, run: Path, workers: Workers, *, callbacks: list[Callable[[Any], None]]) -> None:
            for epoch in epochs:
                progress.append(run, {"kind": "epoch", "epoch": epoch, "step": epoch, "abs_rel": 0.1 * epoch})
                if epoch not in lost:
                    callbacks[0]({"epoch": epoch, "abs_rel": 0.1 * epoch, "ended": epoch == 4})
            while until_stopped and not (run / layout.STOP).exists():
                time.sleep(0.01)
            if error:
                raise error

        monkeypatch.setattr(trial, "fit_on_workers", fit)
        return trial.train_on_workers(RECIPE, tmp_path, Workers(2))

    return run


def summary(results: Iterator[dict[str, Any]]) -> list[tuple[int, bool]]:
    return [(each["epoch"], each["ended"]) for each in results]


@pytest.mark.parametrize("lost", [(), (1,), (2, 3), (4,), (1, 2, 3, 4)])
def test_each_epoch_is_reported_once_and_in_order(train: Any, lost: tuple[int, ...]) -> None:
    assert summary(train(1, 2, 3, 4, lost=lost)) == [(1, False), (2, False), (3, False), (4, True)]


def test_epochs_of_an_attempt_before_are_not_reported_again(train: Any) -> None:
    list(train(1, 2))
    assert summary(train(2, 3, 4)) == [(3, False), (4, True)]
    assert summary(train()) == []


def test_what_ends_training_ends_the_trial_after_its_epochs(train: Any) -> None:
    results = train(1, 2, error=DepthrayError("a worker was lost too often"))
    assert [next(results)["epoch"], next(results)["epoch"]] == [1, 2]
    with pytest.raises(DepthrayError, match="lost too often"):
        next(results)


def test_a_trial_that_is_stopped_asks_its_workers_to_stop(train: Any, tmp_path: Path) -> None:
    results = train(1, until_stopped=True)
    assert next(results)["epoch"] == 1
    results.close()  # as Tune does; it returns only when the workers have left
    assert (tmp_path / layout.STOP).exists()


@pytest.mark.parametrize(("seconds", "runtime"), [(0.1, "openvino"), (0.5, "eager")])
def test_the_latency_is_that_of_the_fastest_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, runtime: str
) -> None:
    """By a clock of the test's own: on a busy machine any pass may be the slower one."""
    run = write_checkpoint(tmp_path / "run", "data.frames=48").parents[1]
    exported: list[Any] = []

    def export(checkpoint: Path, folder: Path, targets: Any, **options: Any) -> dict[str, Path]:
        exported.append((checkpoint.parents[1], tuple(targets)))
        return {"openvino": folder}

    class Exported(nn.Module):
        inputs, stride = ("image",), 1

        def forward(self, batch: Any) -> dict[str, Any]:
            return {"depth": batch["image"][:, :1]}

    def median_seconds(calls: dict[str, Any], *, rounds: int) -> dict[str, float]:
        for call in calls.values():
            call()
        return {name: {"eager": 0.2, "openvino": seconds}[name] for name in calls}

    monkeypatch.setattr(fastest, "export_passing", export)
    monkeypatch.setattr(fastest, "median_seconds", median_seconds)
    monkeypatch.setattr(trial, "open_model", lambda path, **options: SimpleNamespace(network=Exported()))
    cost = trial.measure_cost(run, gpu=False, served=True)
    assert cost[trial.RUNTIME] == runtime and cost["latency_ms"] == 1000 * min(seconds, 0.2)
    assert cost["parameters"] > 1000
    assert exported == [(run, fastest.auto_targets(calibrated=False))]
    assert trial.measure_cost(run, gpu=False)[trial.RUNTIME] == "eager"
    assert len(exported) == 1, "nothing is exported where nobody asked for the latency"


def test_a_trial_may_be_given_the_same_checkpoint_twice_with_other_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a population does where a trial is perturbed again before it has trained an epoch."""
    other = write_checkpoint(tmp_path / "other")

    class Given:
        @contextlib.contextmanager
        def as_directory(self) -> Iterator[str]:
            yield str(other)

    monkeypatch.setattr("ray.tune.get_checkpoint", Given)
    run = tmp_path / "run"
    for lr in (1e-3, 2e-3):
        trial._prepare(run, preflight.load("demo", ["train.epochs=4", f"optim.lr={lr}"]))
        assert read_yaml(run / layout.RECIPE)["optim"]["lr"] == lr
        assert [path.name for path in select.committed(run / layout.CHECKPOINTS)] == [other.name]
    assert len([record for record in progress.read(run) if record["kind"] == progress.REWOUND]) == 1
