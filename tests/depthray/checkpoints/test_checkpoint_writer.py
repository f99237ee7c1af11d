"""The writer in the background: it saves the moment of the call, keeps the best and the last, and reports errors."""

from __future__ import annotations

import math
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import contents, flat

from depthray.checkpoints.load import CheckpointContents, load
from depthray.checkpoints.save import CheckpointWriter, write
from depthray.checkpoints.select import committed, latest
from depthray.config.sections import Recipe
from depthray.errors import CheckpointError

NAN = math.nan
KEPT = [
    ([5, 4, 3, 2, 1], 2, [4, 5]),
    ([1, 2, 3, 4, 5], 2, [1, 2, 5]),
    ([NAN, 2, NAN, 1, NAN], 2, [2, 4, 5]),
    ([NAN, NAN, NAN], 2, [3]),
    ([3, -math.inf, math.inf, 4], 1, [1, 4]),
    ([1, 1, 1, 1], 1, [4]),
]


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Files may not grow beyond so many bytes: the kernel refuses, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_a_disk_that_fills_up_on_the_way(tmp_path: Path, limited: Callable[[int], None], size: int) -> None:
    writer = CheckpointWriter(tmp_path, keep_best=1, monitor="abs_rel")
    writer.save(contents(1))
    before = writer.wait()
    limited(size)
    writer.save(contents(2))
    with pytest.raises(CheckpointError, match="cannot write checkpoints"):
        writer.wait()
    limited(resource.RLIM_INFINITY)
    assert latest(tmp_path, pytest.fail) == before and os.listdir(tmp_path) == ["epoch-0000-step-00000001"]
    writer.save(contents(3))
    assert writer.wait() == latest(tmp_path, pytest.fail)


def test_a_root_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "checkpoints"):
        with pytest.raises(CheckpointError, match="give a folder that can be written to"):
            CheckpointWriter(root, keep_best=1, monitor="abs_rel")


def test_writer_saves_the_moment_of_the_call(tmp_path: Path) -> None:
    live, writer = contents(5), CheckpointWriter(tmp_path / "a", keep_best=9, monitor="abs_rel")
    expected = write(tmp_path / "b", live)
    writer.save(live)
    for tensor in (*live.weights.values(), live.state["optimiser"]["state"][0]["exp_avg"]):
        tensor.zero_()
    live.state["optimiser"]["lr"][0] = 9.0
    live.metrics["abs_rel"] = 9.0
    written = writer.wait()
    assert written is not None
    for name in os.listdir(expected):
        assert (written / name).read_bytes() == (expected / name).read_bytes()


def test_writer_reuses_its_memory_without_mixing_saves(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep_best=9, monitor="abs_rel")
    for step in (1, 2, 3):
        given = contents(step, fill=float(step))
        if step == 2:
            given.weights["more"] = torch.rand(4)
        writer.save(given)
        memory = [tensor.data_ptr() for tensor in writer._snapshot._memory]
    writer.wait()
    assert len(memory) == len(set(memory)) == 4
    for step, path in enumerate(committed(tmp_path), 1):
        assert flat(load(path, state=True).state) == flat(contents(step, fill=float(step)).state)


def test_an_error_of_the_thread_is_raised_by_the_next_save(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path / "run", keep_best=1, monitor="abs_rel")
    shutil.rmtree(tmp_path / "run")
    writer.save(contents(1))
    with pytest.raises(CheckpointError, match="run: cannot write checkpoints: No such file"):
        writer.save(contents(2))


@pytest.mark.parametrize(("scores", "keep", "kept"), KEPT)
def test_the_best_and_the_last_are_kept(tmp_path: Path, scores: list[float], keep: int, kept: list[int]) -> None:
    writer = CheckpointWriter(tmp_path, keep_best=keep, monitor="abs_rel")
    for step, score in enumerate(scores, 1):
        writer.save(contents(step, score))
    writer.wait()
    assert [int(path.name[-8:]) for path in committed(tmp_path)] == kept
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_checkpoint_among_the_best_is_known_before_it_is_saved(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep_best=2, monitor="abs_rel")
    expected = [(3.0, True), (2.0, True), (2.5, True), (4.0, False), (NAN, False), (2.0, True), (1.0, True)]
    for step, (score, is_best) in enumerate(expected, 1):
        assert writer.is_among_best({"abs_rel": score}) == is_best, step
        writer.save(contents(step, score))
    assert not writer.is_among_best({})
    writer.wait()


def test_a_missing_score_is_never_best(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep_best=1, monitor="rmse")
    for step, metrics in enumerate(({}, {"rmse": 2.0}, {}, {"abs_rel": 0.1}), 1):
        writer.save(CheckpointContents({}, {}, Recipe(), metrics, 0, step, ""))
    writer.wait()
    assert [int(path.name[-8:]) for path in committed(tmp_path)] == [2, 4]


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep_best=2, monitor="abs_rel")
    for score in (NAN, 0.3, 0.2):
        writer.save(contents(7, score))
        writer.wait()
    (path,) = committed(tmp_path)
    assert load(path).metrics == {"abs_rel": 0.2}
    assert latest(tmp_path, pytest.fail) == path


def test_reserved_memory_holds_nothing_of_its_own(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep_best=1, monitor="abs_rel")
    writer.reserve(contents(step=1, fill=1.0))
    writer.save(contents(step=2, fill=7.0))
    path = writer.wait()
    assert path is not None
    assert committed(tmp_path) == [path]
    expected = contents(step=2, fill=7.0).weights
    assert all(torch.equal(load(path).weights[key], value) for key, value in expected.items())
