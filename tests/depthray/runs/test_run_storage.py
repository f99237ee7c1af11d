"""A run on a disk that fails: for a while the disk is retried; for good the run ends in one line and loses nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from depthray.__main__ import main
from depthray.checkpoints import load, select
from depthray.checkpoints.select import committed
from depthray.errors import UsageError
from depthray.runs import progress
from depthray.runs.run import prepare
from depthray.storage import retry
from depthray.training import preflight

RUN = ["demo", "data.size=32,64", "data.frames=16", "train.batch_size=8", "train.epochs=6", "train.precision=fp32"]


class Faulty:
    """Refuses all writes below one folder while `code` is set, and sets `refused` at the first of a checkpoint."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.code, self.refused = str(folder), 0, threading.Event()
        self._wrap(patch, io, "open", lambda path, mode="r", *_: not {*mode}.isdisjoint("wax+"))
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            self._wrap(patch, os, name, lambda *_: True)

    def _wrap(self, patch: pytest.MonkeyPatch, module: Any, name: str, writes: Callable[..., bool]) -> None:
        call = getattr(module, name)

        def guarded(path: Any, *rest: Any, **options: Any) -> Any:
            if self.code and str(path).startswith(self.folder) and writes(path, *rest):
                if "checkpoints" in str(path):  # refused progress is written later and not logged
                    self.refused.set()
                raise OSError(self.code, os.strerror(self.code), str(path))
            return call(path, *rest, **options)

        patch.setattr(module, name, guarded)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faulty:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.05)
    return Faulty(tmp_path / "run", monkeypatch)


def train(run: Path, *overrides: str) -> int:
    return main(["train", *RUN, "--local", "--out", str(run), *overrides])


def after_saving(run: Path, count: int, then: Callable[[], None]) -> threading.Thread:
    """Do something as soon as the run has saved so often."""

    def wait() -> None:
        end = time.monotonic() + 60
        while len(names := committed(run / "checkpoints")) < 1 or int(names[-1].name[-8:]) < count:
            assert time.monotonic() < end
            time.sleep(0.002)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load.load(committed(run / "checkpoints")[-1]).weights


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What the run left alone computes."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert train(run) == 0
    return weights(run)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_disk_that_works_again_in_time(
    disk: Faulty, tmp_path: Path, straight: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        disk.code = errno.EIO
        assert disk.refused.wait(60)
        time.sleep(1)
        disk.code = 0

    failing = after_saving(tmp_path / "run", 2, fail)
    assert train(tmp_path / "run") == 0
    failing.join()
    assert disk.refused.is_set() and same(weights(tmp_path / "run"), straight)
    texts = (tmp_path / "run" / "progress.jsonl").read_text()
    assert "resumed" not in texts and "storage: works again after" in texts
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))


def test_a_disk_that_fails_for_good(
    disk: Faulty,
    tmp_path: Path,
    straight: dict[str, torch.Tensor],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, code = tmp_path / "run", errno.EROFS
    monkeypatch.setenv("DEPTHRAY_STORAGE_PATIENCE", "0.5")
    failing = after_saving(run, 2, lambda: setattr(disk, "code", code))
    assert train(run) == 3
    failing.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"depthray: {run}") and os.strerror(code) in line
    saved = committed(run / "checkpoints")
    assert select.latest(run / "checkpoints", pytest.fail) == saved[-1]
    assert train(run, "--resume") in (2, 3, 5)  # still not there: nothing is spoilt by trying
    assert len(capsys.readouterr().err.splitlines()) == 1
    disk.code = 0
    assert train(run, "--resume") == 0
    assert f"resumed from {saved[-1].name} " in (run / "progress.jsonl").read_text()
    assert same(weights(run), straight)


def test_a_run_that_must_restart_reports_it(tmp_path: Path) -> None:
    overrides = ("train.epochs=1", "train.log_seconds=0.001")
    assert train(tmp_path / "run", *overrides) == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train(tmp_path / "run", *overrides, "--resume") == 0
    texts = [json.loads(line).get("text") for line in (tmp_path / "run" / "progress.jsonl").read_text().splitlines()]
    assert texts.count("begins again at step 0: no checkpoint had been saved yet") == 1


def test_a_full_disk_leaves_the_recipe(tmp_path: Path) -> None:
    recipe = preflight.load("demo", [])
    prepare(tmp_path, recipe, resume=False)
    before = (tmp_path / "recipe.yaml").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # the kernel refuses to write, as on a full disk
    try:
        with pytest.raises(UsageError, match="cannot write the run folder"):
            prepare(tmp_path, recipe, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "recipe.yaml").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "recipe.yaml"]


def test_a_line_that_was_cut_off_is_not_continued(tmp_path: Path) -> None:
    file = tmp_path / progress.FILE
    for cut in ("", '{"kind": "no', '{"kind": "note", "text": "1"}\n{"kind"'):
        file.write_text(cut)
        progress.Appender(tmp_path, retry_seconds=0).append({"kind": "note", "text": "2"})
        texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
        assert texts == (["1", "2"] if "1" in cut else ["2"])
