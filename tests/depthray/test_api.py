"""The commands as functions: the same run, scores and errors; a generator of what happens; a light import."""

from __future__ import annotations

import argparse
import inspect
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from own_package import forget, write_package
from paths import ROOT

import depthray
from depthray import models, waiting
from depthray.checkpoints import save
from depthray.checkpoints.load import CheckpointContents
from depthray.cli import evaluate as evaluate_command
from depthray.cli import train as train_command
from depthray.cli.flags import job_flags
from depthray.config import own_code
from depthray.config import recipe as recipes
from depthray.errors import DataError, UsageError
from depthray.exporting import write
from depthray.runs import locate, progress
from depthray.training import preflight
from tuning import command

SMALL = [
    *("data.size=32,64", "data.frames=24", "train.batch_size=8", "train.epochs=2", "eval.batch_size=4"),
    *("train.log_seconds=0.001", "model.encoder=tiny"),
]


@pytest.fixture(scope="module")
def trained(curves, tmp_path_factory):
    """A run by events, as far as its first epoch, and its records."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    events, records = depthray.train_events("demo", *SMALL, out=folder), []
    for record in events:
        records.append(record)
        if record["kind"] == "epoch":
            break
    events.close()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return folder, records


def test_events_are_the_records_of_the_run_as_they_are_written(trained):
    folder, records = trained
    written = [{key: value for key, value in each.items() if key != "time"} for each in progress.read(folder)]
    assert records == written[: len(records)]
    kinds = [record["kind"] for record in records]
    assert kinds[0] == "state" and "interval" in kinds and kinds.index("interval") < kinds.index("epoch")
    assert progress.last_state(progress.read(folder)) == progress.RecordedState("stopped", "its caller ended it")


def test_a_run_that_was_left_is_resumed_and_stands_for_its_folder(trained, capsys):
    folder, _ = trained
    run = depthray.train(out=folder, resume=True)
    printed = capsys.readouterr().out
    assert "resumed from epoch-0001" in printed and "epoch 2 done" in printed
    assert run.finished and run.path == folder.resolve() and run.checkpoint.parent.parent == run.path
    assert depthray.load(run).predict(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30)
    assert (folder / "results.png").is_file()
    assert [line.split(",")[0] for line in (folder / "results.csv").read_text().splitlines()] == ["epoch", "1", "2"]
    report = depthray.evaluate(run, out=folder / "scores")
    assert report.scores["abs_rel"] == pytest.approx(run.scores["abs_rel"], rel=1e-5)
    assert repr(report).startswith("<") and "abs_rel" in repr(report)
    assert evaluate_command.main([str(folder), "--out", str(folder / "command")]) == 0
    assert (folder / "scores" / "evaluation.csv").read_bytes() == (folder / "command" / "evaluation.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["demo", "optim.rl=1"], {}, "optim.rl"),
        (["dmo"], {}, "did you mean 'demo'"),
        (["demo"], {"resume": True}, "resume=True needs out=RUN"),
        (["demo", *SMALL, "train.batch_size=1000"], {}, "batch"),
        (["demo", *SMALL], {"resume": True, "out": "x"}, "^resume=True: .*x holds no run"),
        (["unet-lite"], {}, "name the path of the data with data=PATH"),
    ],
)
def test_mistakes_are_the_errors_of_the_command_and_leave_nothing(tmp_path, monkeypatch, words, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, DataError), match=message):
        depthray.train(*words, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_slow_to_answer_is_named(monkeypatch, capsys):
    def resolve(path):
        time.sleep(0.5)
        raise DataError("it does not answer; give another --out")

    monkeypatch.setattr(waiting, "EVERY", 0.1)
    monkeypatch.setattr(locate, "resolve", resolve)
    calls = {
        "loaded": lambda run: depthray.load(run),
        "evaluated": lambda run: depthray.evaluate(run),
        "exported and compared": lambda run: depthray.export(run, to="onnx", out="out"),
    }
    for verb, call in calls.items():
        with pytest.raises(DataError, match="does not answer"):
            call("s3://bucket/run")
        assert f"waiting for s3://bucket/run to be {verb}: 0 s" in capsys.readouterr().err


def test_trust_is_for_what_a_call_opens(tmp_path, monkeypatch):
    forget(monkeypatch, tmp_path)
    write_package(tmp_path)
    recipe = preflight.load("demo", ["model.name=./mypkg/net.py", "model.width=8", *SMALL[:-1]])
    weights = dict(models.build_model(recipe.model, recipe.data.inputs).state_dict())
    checkpoint = save.write(tmp_path / "run" / "checkpoints", CheckpointContents(weights, {}, recipe, {}, 0, 1, ""))
    (tmp_path / "run" / "recipe.yaml").write_text(recipes.dump(recipe))

    def stop(*_, **__):
        raise DataError(f"trusts {'everything' if own_code.share().everything else 'what it was given'}")

    monkeypatch.setattr(train_command, "prepare_run", stop)
    monkeypatch.setattr(write, "build_graph", stop)  # of the network, which has been built
    calls: list[tuple[Any, str]] = [
        (lambda **trust: next(depthray.train_events(out="run", resume=True, **trust)), "trusts everything"),
        (lambda **trust: depthray.export(checkpoint, to="onnx", out="out", **trust), "trusts what it was given"),
    ]
    for call, message in calls:
        forget(monkeypatch, tmp_path)
        with pytest.raises(UsageError, match="add trust=True if you know who wrote it"):
            call()
        with pytest.raises(DataError, match=message):
            call(trust=True)
        assert not own_code.share().everything


def test_what_is_logged_to_is_chosen_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHRAY_LOG", "")
    next(each for each in depthray.train_events("demo", *SMALL, out=tmp_path / "run") if each["kind"] == "epoch")
    assert not [name for name in ("tensorboard", "results.csv") if (tmp_path / "run" / name).exists()]


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="is one process; for several"):
        depthray.train("demo")


def test_tune_is_the_command_with_the_same_flags(tmp_path, monkeypatch):
    seen = []

    def main(argv):
        seen.append(command.build_parser().parse_intermixed_args(argv))
        (tmp_path / "best.yaml").touch()
        return 0

    monkeypatch.setattr(command, "main", main)
    options = {"trials": 4, "hours": 0.5, "search": "random", "constraints": ["latency_ms=20"], "workers_per_trial": 2}
    search = depthray.tune("demo", "train.epochs=3", space="lr", data="x", out=tmp_path, **options)
    (arguments,) = seen
    assert (arguments.recipe, arguments.overrides, arguments.space) == ("demo", ["train.epochs=3"], "lr")
    assert (arguments.out, arguments.data, arguments.top) == (tmp_path, "x", None)
    assert {name: getattr(arguments, name) for name in options} == options
    assert search == depthray.TunedSearch(tmp_path, tmp_path / "best.yaml", finished=True)
    depthray.tune(out=tmp_path, resume=True)
    assert (seen[1].resume, seen[1].out, seen[1].recipe) == (tmp_path, None, "")
    with pytest.raises(UsageError, match="search='grd': choose from: tpe"):
        depthray.tune("demo", search="grd")


def test_every_flag_of_tune_is_an_argument():
    of_jobs = argparse.ArgumentParser()  # whose flags a function has no use for
    job_flags.add_flags(of_jobs)
    flags = {action.dest for action in command.build_parser()._actions}
    assert flags - {action.dest for action in of_jobs._actions} == {*inspect.signature(depthray.tune).parameters}


def test_the_package_lists_its_functions_and_imports_them_when_used():
    code = (
        "import sys, depthray; assert {'train', 'tune', 'load', 'evaluate', 'export'} <= set(dir(depthray)); "
        "assert not {'torch', 'ray', 'tuning', 'numpy'} & set(sys.modules); "
        "assert depthray.train.__module__ == 'depthray.api' and not hasattr(depthray, 'tuen'); "
        "assert not {'torch', 'ray', 'tuning'} & set(sys.modules), 'a mistake in an override shows before torch loads'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
