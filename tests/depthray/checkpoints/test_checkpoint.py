"""Checkpoints: complete and verified or invisible, whatever is done to them or to their writer."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Hostile, contents, flat, reseal

from depthray.checkpoints import manifest, select
from depthray.checkpoints.load import CheckpointContents, load
from depthray.checkpoints.manifest import verify
from depthray.checkpoints.save import write
from depthray.checkpoints.select import committed, latest
from depthray.config.sections import Recipe
from depthray.errors import CheckpointError
from depthray.runs.locate import resolve
from depthray.storage import local

FILES = ("model.safetensors", "state.pt", "recipe.yaml", "metrics.json", "manifest.json")


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def load_all(path: Path) -> CheckpointContents:
    return load(path, state=True)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    given = contents(12, epoch=3)
    path = write(tmp_path, given)
    loaded = load(path, state=True)
    assert path == tmp_path / "epoch-0003-step-00000012" and sorted(os.listdir(path)) == sorted(FILES)
    assert {k: v.tolist() for k, v in loaded.weights.items()} == {k: v.tolist() for k, v in given.weights.items()}
    assert {k: v.dtype for k, v in loaded.weights.items()} == {k: v.dtype for k, v in given.weights.items()}
    assert flat(loaded.state) == flat(given.state)
    assert loaded.recipe == given.recipe and loaded.metrics == given.metrics
    assert (loaded.epoch, loaded.step, loaded.fingerprint) == (3, 12, "f" * 64)
    assert load(path).state == {}


def test_state_keeps_strides_and_tied_weights_are_both_there(tmp_path: Path) -> None:
    tied, image = torch.rand(6, 4), torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    weights = {"a": tied, "b": tied, "part": tied[1:3], "across": tied.t(), "image": image}
    given = contents()
    loaded = load(
        write(tmp_path, CheckpointContents(weights, {"m": image, "n": image}, Recipe(), {}, 0, 1, "")), state=True
    )
    assert all(torch.equal(loaded.weights[name], weights[name]) for name in weights)
    assert all(loaded.weights[name].is_contiguous() for name in weights)
    assert loaded.state["m"].stride() == image.stride()
    assert loaded.state["m"].data_ptr() == loaded.state["n"].data_ptr()
    assert given.weights["conv.weight"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_anywhere_is_found(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, contents())
    good = (path / name).read_bytes()
    for position in {0, len(good) - 1, *np.random.default_rng(0).integers(0, len(good), 20).tolist()}:
        for bit, read in ((0x01, verify), (0x20, load_all), (0x80, load_all if name == "state.pt" else load)):
            (path / name).write_bytes(good[:position] + bytes([good[position] ^ bit]) + good[position + 1 :])
            with pytest.raises(CheckpointError, match=f"{name}: .*(SHA-256|digest|format)"):
                read(path)
    (path / name).write_bytes(good)
    verify(path)


def test_only_resuming_reads_the_training_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = write(tmp_path, contents()), list[str]()
    (path / "state.pt").write_bytes(bytes((path / "state.pt").stat().st_size))
    before = Path.open

    def opening(self: Path, *args: Any, **options: Any) -> Any:
        opened.append(self.name)
        return before(self, *args, **options)

    monkeypatch.setattr(Path, "open", opening)
    assert load(path).weights.keys() == contents().weights.keys()
    assert sorted(opened) == ["manifest.json", "metrics.json", "model.safetensors", "recipe.yaml"]
    with pytest.raises(CheckpointError, match=r"state\.pt: damaged \(its SHA-256"):
        load(path, state=True)


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    good = (write(tmp_path, contents()) / "manifest.json").read_bytes()
    for position in range(len(good)):
        for bit in range(0, 8, 1 if position % 16 == 0 else 5):
            flipped = good[:position] + bytes([good[position] ^ 1 << bit]) + good[position + 1 :]
            with pytest.raises(CheckpointError, match=r"damaged|format"):
                manifest.parse(flipped, where=tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "empty", "short", "long", "folder"])
def test_files_missing_or_of_other_length_are_found(tmp_path: Path, name: str, harm: str) -> None:
    path = write(tmp_path, contents())
    data = (path / name).read_bytes()
    (path / name).unlink()
    if harm == "folder":
        (path / name).mkdir()
    elif harm != "missing":
        (path / name).write_bytes({"empty": b"", "short": data[:-1], "long": data + b"\n"}[harm])
    for read in (verify, load, load_all):
        with pytest.raises(CheckpointError, match=name):
            read(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, contents())
    (path / "extra.py").touch()
    with pytest.raises(CheckpointError, match=r"extra\.py does not belong"):
        load(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "[" * 200_000, '{"format": 2}', '{"format": 1, "files": 3}'])
def test_a_manifest_of_anything_is_an_error(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, contents())
    (path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        verify(path)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_hostile_pickle_never_runs(tmp_path: Path, sealed: bool, zipped: bool) -> None:
    path = write(tmp_path / "run", contents())
    torch.save({"step": Hostile(tmp_path / "mark")}, path / "state.pt", _use_new_zipfile_serialization=zipped)
    if sealed:
        reseal(path)
    with pytest.raises(CheckpointError, match="do not trust it" if sealed else "use another"):
        load(path, state=True)
    assert not (tmp_path / "mark").exists()


def test_latest_falls_back_and_reports_it(tmp_path: Path) -> None:
    paths = [write(tmp_path, contents(step)) for step in (1, 2, 3, 4)]
    lines: list[str] = []
    (paths[3] / "state.pt").write_bytes(b"x")
    (paths[2] / "manifest.json").unlink()
    assert latest(tmp_path, lines.append) == paths[1]
    assert [str(path) in line for path, line in zip((paths[3], paths[2]), lines, strict=True)] == [True, True]
    assert committed(tmp_path) == [paths[0], paths[1], paths[3]]


def test_latest_of_nothing_and_of_damaged_ones(tmp_path: Path) -> None:
    lines: list[str] = []
    assert latest(tmp_path / "none", lines.append) is None and not lines
    (write(tmp_path, contents()) / "recipe.yaml").unlink()
    with pytest.raises(CheckpointError, match="none of 1 checkpoints is good"):
        latest(tmp_path, lines.append)


POINTS: list[tuple[Any, str, int]] = [
    *((os, "fsync", n) for n in range(7)),
    *((Path, "open", n) for n in range(5)),
    *[(os, "rename", 0), (local.Hashed, "write", 0), (torch, "save", 0), (manifest, "render", 0)],
]


@pytest.mark.parametrize(("owner", "name", "nth"), POINTS)
def test_a_crash_anywhere_leaves_nothing_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, nth: int
) -> None:
    before = write(tmp_path, contents(1))
    real, left = getattr(owner, name), [nth]

    def dies(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        with pytest.raises(Killed):
            write(tmp_path, contents(2))
    newest = committed(tmp_path)[-1]
    verify(newest)
    # The last sync follows the rename: by then the new one is there, and complete.
    assert newest.name.endswith("2") if (name, nth) == ("fsync", 6) else newest == before
    assert latest(tmp_path, pytest.fail) == newest
    write(tmp_path, contents(3))
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(("code", "advice"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "can be written to")])
@pytest.mark.parametrize("call", [(os, "fsync"), (Path, "mkdir"), (os, "rename")])
def test_a_failing_disk_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str, call: tuple[Any, str]
) -> None:
    before = write(tmp_path, contents(1))

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(*call, fails)
        with pytest.raises(CheckpointError, match=f"{os.strerror(code)}.*{advice}"):
            write(tmp_path, contents(2))
    assert latest(tmp_path, pytest.fail) == before and os.listdir(tmp_path) == [before.name]


@pytest.mark.parametrize("value", [np.zeros(2), Path("x"), {1, 2}, object()])
def test_state_that_could_not_be_loaded_safely_is_refused(tmp_path: Path, value: object) -> None:
    given = contents()
    given.state["optimiser"]["odd"] = [value]
    with pytest.raises(CheckpointError, match=r"state\['state'\]\['optimiser'\]\['odd'\]\[0\] is"):
        write(tmp_path, given)


@pytest.mark.parametrize(("scores", "best"), [([3, 1, 2], 2), ([math.nan] * 3, 3), ([2, math.nan, 2], 3)])
def test_a_run_folder_stands_for_its_best_checkpoint(tmp_path: Path, scores: list[float], best: int) -> None:
    root = tmp_path / select.FOLDER
    paths = [write(root, contents(step, score)) for step, score in enumerate(scores, 1)]
    assert resolve(tmp_path) == resolve(root) == paths[best - 1]
    assert resolve(paths[0]) == paths[0]


def test_a_path_without_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a checkpoint nor a run folder"):
        resolve(tmp_path)
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        load(tmp_path / "epoch-0001-step-00000001")


def test_metrics_are_strict_json(tmp_path: Path) -> None:
    path = write(tmp_path, contents(1, math.nan))
    assert json.loads((path / "metrics.json").read_text(), parse_constant=pytest.fail) == {"abs_rel": None}
    assert math.isnan(load(path).metrics["abs_rel"])
