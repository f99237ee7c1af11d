"""The state of a run is a field of its progress records: recorded at each way it can end, and listed by it alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from depthray.errors import CheckpointError, DepthrayError, DivergedError
from depthray.runs import control, layout, listing, progress
from depthray.runs.progress import RecordedState
from depthray.runs.run import prepare, record
from depthray.training import preflight

SMALL = ["data.size=32,64", "data.frames=32", "train.batch_size=8", "train.precision=fp32", "train.epochs=2"]


def train(run: Path, *overrides: str, resume: bool = False) -> Iterator[Any]:
    """The epochs of a run of `demo`, with three steps each."""
    recipe = preflight.load("demo", [*SMALL, *overrides])
    prepare(run, recipe, resume=resume)
    return record(recipe, run, torch.device("cpu"))


def states(run: Path) -> list[tuple[str, str]]:
    """The states that a run has recorded."""
    return [(each["state"], each["reason"]) for each in progress.read(run) if each["kind"] == "state"]


def status(run: Path, *, later: float = 0.0) -> listing.RunStatus:
    """What `depthray runs list` shows some seconds after the last record."""
    found = listing.open_run(run)
    return listing.status(found, now=found.records[-1]["time"] + later)


def reword(run: Path) -> None:
    """Replace all texts of a run's progress by others."""
    lines = [{**each, "text": "training ended: nothing of this is true"} for each in progress.read(run)]
    (run / progress.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop_states(run: Path, *texts: str) -> None:
    """Make the progress of a run that of version 0.1, which wrote these texts at last and no states."""
    lines = [each for each in progress.read(run) if each["kind"] != "state"]
    notes = [{"kind": "note", "text": text, "time": lines[-1]["time"]} for text in texts]
    (run / progress.FILE).write_text("".join(json.dumps(line) + "\n" for line in [*lines, *notes]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    for _ in train(run):
        pass
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a run that has finished."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_run_to_the_end_of_its_recipe_is_finished(finished: Path) -> None:
    assert states(finished) == [("running", ""), ("finished", "all epochs done")]
    last = progress.read(finished)[-1]
    assert (last["epoch"], last["step"]) == (2, 6) and last["text"] == "training ended: all epochs done"


def test_a_run_resumed_at_its_end_is_finished_again(run: Path) -> None:
    assert list(train(run, resume=True)) == []
    assert states(run)[2:] == [("running", ""), ("finished", "all epochs done")]


def test_inputs_that_the_network_does_not_read_are_named(tmp_path: Path) -> None:
    model = ["model={name: depthnet, stacking: original}", "data.inputs=image,semantics"]
    for _ in train(tmp_path / "run", *model, "data.size=64,64", "train.epochs=0"):
        pass
    notes = [str(each["text"]) for each in progress.read(tmp_path / "run") if each["kind"] == "note"]
    assert "this network does not read semantics of data.inputs" in notes


def test_early_stopping_is_an_end_that_nothing_follows(tmp_path: Path) -> None:
    for _ in train(tmp_path / "run", "train.epochs=9", "train.patience=1", "optim.lr=1e-30"):
        pass
    state, reason = states(tmp_path / "run")[-1]
    assert state == "finished" and reason == "no better abs_rel for 1 epochs"


@pytest.mark.parametrize(("step", "epoch"), [(1, 0), (3, 1)], ids=["amid an epoch", "after an epoch"])
def test_a_file_stop_ends_a_run_that_can_be_resumed(step: int, epoch: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = preflight.load("demo", [*SMALL, "train.log_seconds=1e-9"])
    prepare(run, recipe, resume=False)

    def show(line: progress.Record) -> None:
        if line["kind"] == "interval" and line["step"] == step:
            control.request_stop(run)

    for _ in record(recipe, run, torch.device("cpu"), show=show):
        pass
    assert states(run)[-1] == ("stopped", "asked to stop")
    last = progress.read(run)[-1]
    assert last["epoch"] == epoch
    assert last["text"].startswith("training ended: asked to stop" if epoch else f"stopped at step {last['step']}")
    assert list((run / layout.CHECKPOINTS).iterdir()), "what is recorded as stopped is saved"
    for _ in train(run, resume=True):
        pass
    assert [state for state, _ in states(run)] == ["running", "stopped", "running", "finished"]


def test_a_time_limit_stops_a_run(tmp_path: Path) -> None:
    for _ in train(tmp_path / "run", "train.max_minutes=1e-9"):
        pass
    assert states(tmp_path / "run")[-1] == ("stopped", "time limit of 1e-09 minutes")
    assert status(tmp_path / "run").state == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_and_it_is_saved(number: signal.Signals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        epochs = train(run)
        control.stop_on_signals(run, lambda _: None)
        next(epochs)
        os.kill(os.getpid(), number)
        for _ in epochs:
            pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert states(run)[-1] == ("stopped", "asked to stop")


def test_a_second_ctrl_c_is_recorded_as_stopped(tmp_path: Path) -> None:
    recipe = preflight.load("demo", SMALL)
    prepare(tmp_path / "run", recipe, resume=False)

    def interrupt(line: progress.Record) -> None:
        if line["kind"] == "interval":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(record(recipe, tmp_path / "run", torch.device("cpu"), show=interrupt))
    assert states(tmp_path / "run")[-1] == ("stopped", "interrupted")


def test_a_caller_that_takes_no_more_epochs_stops_the_run(tmp_path: Path) -> None:
    epochs = train(tmp_path / "run")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    assert states(tmp_path / "run")[-1][0] == "stopped"


def test_a_run_that_diverges_has_failed_and_records_why(tmp_path: Path) -> None:
    overrides = ["optim.lr=1e30", "optim.clip_norm=0", "optim.schedule=constant", "train.max_bad_steps=2"]
    with pytest.raises(DivergedError) as error:
        list(train(tmp_path / "run", "train.epochs=9", *overrides))
    assert states(tmp_path / "run")[-1] == ("failed", str(error.value))
    assert status(tmp_path / "run")[:2] == ("failed", str(error.value))


def test_a_fault_of_ours_is_no_recorded_end_as_a_restart_may_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Iterator[Any]:
        raise RuntimeError("connection closed by peer")
        yield

    monkeypatch.setattr("depthray.runs.run.fit", fail)
    with pytest.raises(RuntimeError):
        list(train(tmp_path / "run"))
    assert states(tmp_path / "run") == [("running", "")]
    assert status(tmp_path / "run", later=1000).state == "silent"


def test_the_driver_records_a_failure_that_rank_0_could_not(run: Path) -> None:
    progress.record_failure(run, "too late")
    assert states(run)[-1][0] == "finished", "the run has recorded its end itself"
    running = progress.state_record(RecordedState("running", ""), "resumed", epoch=1, step=2)
    progress.append(run, running)
    with (run / progress.FILE).open("a") as file:
        file.write('{"kind": "int')  # the worker was killed while it wrote
    progress.record_failure(run, "a worker was lost too often")
    assert states(run)[-1] == ("failed", "a worker was lost too often")
    assert (progress.read(run)[-1]["epoch"], progress.read(run)[-1]["step"]) == (1, 2)
    progress.record_failure(run.parent / "none", "nothing has started there")


@pytest.mark.parametrize("state", ["running", "stopped", "finished", "failed"])
def test_the_listing_reads_fields_and_no_text(state: Any, run: Path) -> None:
    recorded = progress.state_record(RecordedState(state, "a reason"), "a text", epoch=2, step=4)
    progress.append(run, recorded)
    before = status(run)
    assert before.state == state and before.why == ("" if state == "running" else "a reason")
    reword(run)
    assert status(run) == before


@pytest.mark.parametrize(
    ("text", "state", "why"),
    [
        ("training ended: all epochs done", "finished", "all epochs done"),
        ("training ended: no better abs_rel for 3 epochs", "finished", "no better abs_rel for 3 epochs"),
        ("training ended: asked to stop", "stopped", "asked to stop"),
        ("training ended: time limit of 5 minutes", "stopped", "time limit of 5 minutes"),
        ("stopped at step 4: asked to stop; go on with --resume", "stopped", "stopped at step 4: asked to stop"),
        ("resumed from epoch-0002-step-00000004 (epoch 2, step 4) on 1 worker", "finished", "all epochs done"),
        ("begins again at step 0: no checkpoint had been saved yet", "running", ""),
        ("storage: works again after 2 failures in 3 s", "running", ""),
    ],
)
def test_runs_of_version_0_1_are_read_from_their_sentences(text: str, state: str, why: str, run: Path) -> None:
    drop_states(run, text)
    assert status(run)[:2] == (state, why)


def test_a_sentence_of_version_0_1_is_void_once_training_continued(run: Path) -> None:
    drop_states(run, "stopped at step 2: asked to stop; go on with --resume")
    progress.append(run, {"kind": "epoch", "epoch": 2, "step": 4})
    assert status(run).state == "running"
    (run / layout.ERROR).write_text(json.dumps({"exit_code": 4, "text": "the loss is not finite"}))
    assert status(run)[:2] == ("failed", "the loss is not finite")


def test_a_state_record_outweighs_all_sentences(run: Path) -> None:
    drop_states(run, "stopped at step 2: asked to stop; go on with --resume")
    (run / layout.ERROR).write_text(json.dumps({"text": "of an earlier attempt"}))
    progress.append(run, progress.state_record(RecordedState("running", ""), "resumed", epoch=1, step=2))
    assert status(run).state == "running"


def test_a_failing_disk_does_not_hide_why_training_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of the failure cannot be written either; the first error is the one that is raised."""
    error = DepthrayError("the first error")

    def refuse(*_: Any) -> None:
        raise CheckpointError("the disk is full")

    def fail(*_: Any) -> Iterator[Any]:
        monkeypatch.setattr(progress.Appender, "append", refuse)
        raise error
        yield

    monkeypatch.setattr("depthray.runs.run.fit", fail)
    with pytest.raises(DepthrayError) as raised:
        list(train(tmp_path / "run"))
    assert raised.value is error
