"""Remote runs: uploaded while they train, resumed on another machine, and safe when the store fails."""

from __future__ import annotations

import errno
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import torch
from checkpoints import contents, flat
from object_store import Store, serving

from cluster.train import main
from depthray import load
from depthray.checkpoints import load as checkpoints_load
from depthray.checkpoints import manifest, remote_checkpoints, save, select
from depthray.checkpoints.save import CheckpointWriter
from depthray.checkpoints.select import committed
from depthray.errors import CheckpointError, UsageError
from depthray.runs import console, download, layout, locate, progress
from depthray.runs.run import prepare, record
from depthray.runs.upload import Uploader, upload_checkpoint
from depthray.storage import retry
from depthray.storage.remote import RemoteFolder, StorageError
from depthray.training import preflight

# One step an epoch, at a rate that does not depend on how many there will be: a run of one epoch is resumed to two.
OVERRIDES = ["data.size=32,64", "data.frames=16", "train.batch_size=8", "train.epochs=2", "train.precision=fp32"]
OVERRIDES += ["optim.schedule=constant"]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with serving(Store()) as running:
        yield running


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Be the machine of that name, which has a cache and a working directory of its own."""

    def become(name: str) -> None:
        monkeypatch.setenv("DEPTHRAY_CACHE", str(tmp_path / name / "cache"))
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)

    become("one")
    monkeypatch.setenv("DEPTHRAY_STORAGE_PATIENCE", "20")
    return become


@pytest.fixture
def run(store: Store) -> RemoteFolder:
    """An empty run folder on the store."""
    folder = RemoteFolder(store.url(f"runs/{next(NUMBERS)}"), retry_seconds=5)
    folder.write(layout.IDENTITY, folder.url.encode())
    return folder


def mirrored(
    run: RemoteFolder, working: Path, log: Callable[[str], None] = pytest.fail, *, retry_seconds: float = 10
) -> Uploader:
    (working / "checkpoints").mkdir(parents=True, exist_ok=True)
    return Uploader(run, working, log, retry_seconds=retry_seconds)


def states(run: Path) -> list[tuple[str, str]]:
    """The states that a run has recorded, with their reasons."""
    return [(each["state"], each["reason"]) for each in progress.read(run) if each["kind"] == "state"]


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def test_a_mirror_holds_the_same_bytes_and_follows_pruning(run: RemoteFolder, tmp_path: Path) -> None:
    mirror = mirrored(run, tmp_path)
    writer = CheckpointWriter(tmp_path / "checkpoints", keep_best=1, monitor="abs_rel")
    for step, score in enumerate((0.5, 0.1, 0.4, 0.3), 1):
        writer.save(contents(step, score))
        writer.wait()
    progress.append(tmp_path, {"kind": "note", "text": "here"})
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.1").write_bytes(b"curves")
    wait_until(lambda: len(remote_checkpoints.complete_checkpoints(run)) == 2)
    writer.save(contents(5, 0.2))
    writer.wait()
    mirror.close()
    expected = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    expected[layout.IDENTITY] = run.url.encode()
    assert {name: run.read(name) for name in run.files()} == expected
    assert remote_checkpoints.complete_checkpoints(run) == ["epoch-0000-step-00000002", "epoch-0000-step-00000005"]


def test_a_checkpoint_without_its_manifest_is_invisible_there(run: RemoteFolder, tmp_path: Path) -> None:
    (path,) = [save.write(tmp_path / "checkpoints", contents(1))]
    for name in manifest.FILES:
        run.upload(f"checkpoints/{path.name}/{name}", path / name)
    assert remote_checkpoints.complete_checkpoints(run) == []
    upload_checkpoint(run, path)
    assert remote_checkpoints.complete_checkpoints(run) == [path.name]


def test_the_newest_good_checkpoint_is_resumed_and_the_others_are_downloaded(run: RemoteFolder, tmp_path: Path) -> None:
    paths = [save.write(tmp_path / "a" / "checkpoints", contents(step, fill=step)) for step in (1, 2, 3)]
    for path in paths:
        upload_checkpoint(run, path)
    broken = f"checkpoints/{paths[2].name}/state.pt"
    run.write(broken, run.read(broken)[:-1] + b"?")
    lines: list[str] = []
    download.prepare_to_resume(run, tmp_path / "b", lines.append)
    assert [path.name for path in committed(tmp_path / "b" / "checkpoints")] == [paths[1].name]
    assert len(lines) == 1 and f"{run.url}/{broken}: damaged" in lines[0] and "going back" in lines[0]
    got = checkpoints_load.load(tmp_path / "b" / "checkpoints" / paths[1].name, state=True)
    assert flat(got.state) == flat(contents(2, fill=2).state)
    mirror = mirrored(run, tmp_path / "b", lines.append)
    wait_until(lambda: len(committed(tmp_path / "b" / "checkpoints")) == 2)
    mirror.close()
    assert remote_checkpoints.complete_checkpoints(run) == [
        path.name for path in paths
    ]  # what could not be read is not ours to remove


def test_where_all_are_bad_nothing_restarts(run: RemoteFolder, tmp_path: Path) -> None:
    path = save.write(tmp_path / "a" / "checkpoints", contents(1))
    upload_checkpoint(run, path)
    run.write(f"checkpoints/{path.name}/state.pt", b"")
    with pytest.raises(CheckpointError, match="none of 1 checkpoints is good"):
        download.prepare_to_resume(run, tmp_path / "b", lambda _: None)


def test_a_working_folder_of_another_run_is_moved_away(run: RemoteFolder, tmp_path: Path) -> None:
    lines: list[str] = []
    download.prepare_to_resume(run, tmp_path / "w", lines.append)
    save.write(tmp_path / "w" / "checkpoints", contents(9))
    download.prepare_to_resume(run, tmp_path / "w", lines.append)
    assert not lines and len(committed(tmp_path / "w" / "checkpoints")) == 1
    run.write(layout.IDENTITY, b"another")
    download.prepare_to_resume(run, tmp_path / "w", lines.append)
    assert len(lines) == 1 and not committed(tmp_path / "w" / "checkpoints")
    (aside,) = tmp_path.glob("w-before-*")
    assert len(committed(aside / "checkpoints")) == 1


def test_a_store_away_for_a_while_is_retried(store: Store, run: RemoteFolder, tmp_path: Path) -> None:
    lines: list[str] = []
    mirror = mirrored(run, tmp_path, lines.append, retry_seconds=60)
    with store.away():
        path = save.write(tmp_path / "checkpoints", contents(1))
        wait_until(lambda: bool(lines))
    mirror.close()
    assert remote_checkpoints.complete_checkpoints(run) == [path.name] and mirror.error is None
    assert lines[0].startswith(f"storage: {run.url}") and "; trying again " in lines[0]
    assert any("storage: works again after" in text for text in lines)


def test_a_store_away_for_good_ends_in_one_line(store: Store, run: RemoteFolder, tmp_path: Path) -> None:
    mirror = mirrored(run, tmp_path, lambda _: None, retry_seconds=1)
    first = save.write(tmp_path / "checkpoints", contents(1))
    wait_until(lambda: remote_checkpoints.complete_checkpoints(run) == [first.name])
    with store.away():
        save.write(tmp_path / "checkpoints", contents(2))
        wait_until(lambda: mirror.error is not None, 60)
        with pytest.raises(StorageError) as error:
            mirror.close()
    assert str(tmp_path) in str(error.value) and "--resume" in str(error.value) and "\n" not in str(error.value)
    assert (
        remote_checkpoints.complete_checkpoints(run) == [first.name] and len(committed(tmp_path / "checkpoints")) == 2
    )


def test_stop_on_the_store_reaches_the_run(run: RemoteFolder, tmp_path: Path) -> None:
    mirror = mirrored(run, tmp_path)
    run.write("STOP", b"")
    wait_until((tmp_path / "STOP").exists)
    mirror.close()


def test_a_follower_reads_what_is_mirrored(store: Store, run: RemoteFolder, tmp_path: Path) -> None:
    progress.append(tmp_path, {"kind": "note", "text": "before"})
    run.upload(progress.FILE, tmp_path / progress.FILE)
    seen: list[progress.Record] = []
    with console.Follower(run.url, seen.append, every=0.05):
        store.stop()
        time.sleep(0.2)
        store.start()
        progress.append(tmp_path, {"kind": "note", "text": "after"})
        run.upload(progress.FILE, tmp_path / progress.FILE)
    assert [record["text"] for record in seen] == ["after"]


def weights(url: str) -> dict[str, torch.Tensor]:
    return checkpoints_load.load(locate.resolve(Path(url))).weights


def test_a_run_resumes_exactly_on_another_machine(
    store: Store, machine: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local, url = tmp_path / "whole", store.url("runs/exact")
    assert main(["demo", *OVERRIDES, "--local", "--out", str(local)]) == 0
    assert main(["demo", *OVERRIDES, "train.epochs=1", "--local", "--out", url]) == 0
    with pytest.raises(UsageError, match="already holds a run"):
        main(["demo", *OVERRIDES, "--local", "--out", url])
    with pytest.raises(UsageError, match="trained with another recipe"):
        main(["--local", "--out", url, "--resume", "optim.lr=9"])
    machine("two")
    capsys.readouterr()
    assert main(["--local", "--out", url, "--resume", "train.epochs=2"]) == 0
    lines = capsys.readouterr().out
    assert "resumed from epoch-0001" in lines and f"checkpoint   {url}/checkpoints/epoch-000" in lines
    machine("three")
    mine, theirs = (
        checkpoints_load.load(committed(local / "checkpoints")[-1]),
        Path(url, "checkpoints", "epoch-0002-step-00000002"),
    )
    assert all(torch.equal(value, mine.weights[key]) for key, value in weights(str(theirs)).items())
    assert load(url).recipe.train.epochs in (1, 2)
    kinds = [line.split(b'"')[3] for line in RemoteFolder(url).read(progress.FILE).splitlines()]
    assert kinds.count(b"epoch") == 2


def test_other_commands_take_a_remote_run(
    store: Store, machine: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    from depthray.__main__ import main as depthray

    url = store.url("runs/commands")
    assert main(["demo", *OVERRIDES, "train.epochs=1", "--local", "--out", url]) == 0
    machine("two")
    assert depthray(["evaluate", url]) == 0
    (out,) = Path("evaluations").iterdir()
    assert out.name.startswith("epoch-0001-step-00000001-val-")
    assert depthray(["evaluate", f"{url}/checkpoints/none"]) == 3
    assert depthray(["train", "--local", "--resume", "--out", store.url("runs/none")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_training_outlives_a_store_and_reports_where_the_run_is(
    store: Store, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = store.url("runs/dies")
    monkeypatch.setenv("DEPTHRAY_STORAGE_PATIENCE", "1")
    threading.Thread(target=_stop_when_it_trains, args=(store, url), daemon=True).start()
    try:
        with pytest.raises(StorageError) as error:
            main(["demo", *OVERRIDES, "train.epochs=400", "--local", "--out", url])
    finally:
        store.stop()
        store.start()
    working = download.working_folder(url)
    assert error.value.exit_code == 5 and str(working) in str(error.value)
    assert states(working) == [("running", ""), ("failed", str(error.value))]
    assert select.latest(working / "checkpoints", pytest.fail)
    step = int(committed(working / "checkpoints")[-1].name[-8:])
    capsys.readouterr()
    monkeypatch.setenv("DEPTHRAY_STORAGE_PATIENCE", "20")
    assert main(["--local", "--out", url, "--resume", f"train.epochs={step + 1}"]) == 0
    assert f"step {step})" in capsys.readouterr().out
    assert remote_checkpoints.complete_checkpoints(RemoteFolder(url))[-1].endswith(f"{step + 1:08d}")


def test_a_finished_run_whose_last_upload_fails_is_recorded_as_failed(
    store: Store, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = store.url("runs/last-upload")
    monkeypatch.setenv("DEPTHRAY_STORAGE_PATIENCE", "1")
    recipe = preflight.load("demo", [*OVERRIDES, "train.epochs=1"])
    prepare(url, recipe, resume=False)
    try:
        with pytest.raises(StorageError) as error:
            _train_and_stop(store, record(recipe, url, torch.device("cpu")))
    finally:
        store.stop()
        store.start()
    working = download.working_folder(url)
    assert states(working)[-1] == ("failed", str(error.value))
    assert states(working)[-2] == ("finished", "all epochs done"), "it was, before its upload failed"


def _train_and_stop(store: Store, run: Iterator[object]) -> None:
    for _ in run:
        store.stop()


def _stop_when_it_trains(store: Store, url: str) -> None:
    wait_until(lambda: bool(remote_checkpoints.complete_checkpoints(RemoteFolder(url))), 60)
    store.stop()


class Failing:
    """A file system call that fails with an error for so many times."""

    def __init__(self, call: Callable[..., object], code: int, times: int) -> None:
        self.call, self.code, self.left = call, code, times

    def __call__(self, *args: object, **options: object) -> object:
        if self.left > 0:
            self.left -= 1
            raise OSError(self.code, os.strerror(self.code))
        return self.call(*args, **options)


@pytest.mark.parametrize("code", ["EIO", "ESTALE", "ENOSPC", "ETIMEDOUT", "EROFS"])
def test_a_local_disk_that_fails_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    lines: list[str] = []
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    writer = CheckpointWriter(tmp_path, keep_best=1, monitor="abs_rel", retry_seconds=30, log=lines.append)
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, getattr(errno, code), 3))
    writer.save(contents(1))
    path = writer.wait()
    assert path and select.latest(tmp_path, pytest.fail) == path and os.listdir(tmp_path) == [path.name]
    assert len(lines) == 2 and "trying again" in lines[0] and "works again after 3 failures" in lines[1]


@pytest.mark.parametrize(("code", "retry_seconds"), [("EIO", 0.3), ("EACCES", 60.0)])
def test_a_local_disk_that_fails_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, retry_seconds: float
) -> None:
    writer = CheckpointWriter(tmp_path, keep_best=1, monitor="abs_rel", retry_seconds=retry_seconds)
    writer.save(contents(1))
    before = writer.wait()
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, getattr(errno, code), 10**9))
    writer.save(contents(2))
    with pytest.raises(CheckpointError, match="cannot write checkpoints") as error:
        writer.wait()
    assert error.value.exit_code == 3
    assert select.latest(tmp_path, pytest.fail) == before


def test_progress_refused_by_a_disk_is_added_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = progress.Appender(tmp_path, retry_seconds=60)
    file.append({"kind": "note", "text": "0"})
    with monkeypatch.context() as patch:
        patch.setattr(progress, "sync", half_written)
        file.append({"kind": "note", "text": "1"})
        file.append({"kind": "note", "text": "2"})
    assert not (tmp_path / progress.FILE).read_bytes().endswith(b"\n")
    file.append({"kind": "note", "text": "3"})
    lines = (tmp_path / progress.FILE).read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["0", "1", "2", "3"]


def half_written(file: IO[bytes], data: bytes) -> None:
    file.write(data[: len(data) * 2 // 3])
    file.flush()
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_progress_refused_for_good_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = progress.Appender(tmp_path, retry_seconds=0.1)
    monkeypatch.setattr(progress, "sync", half_written)
    file.append({"kind": "note", "text": "1"})
    time.sleep(0.15)
    with pytest.raises(CheckpointError, match="Input/output error"):
        file.append({"kind": "note", "text": "2"})
