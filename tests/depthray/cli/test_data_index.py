"""`depthray data index`: two folders become a data set that the other commands recognise and split."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from bad_input import SIZE
from frames import folder_dataset, read_index

from depthray.__main__ import main
from depthray.data import sources

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A data set of 12 frames without its index."""
    root = folder_dataset(tmp_path / "mine", size=SIZE)
    (root / "index.csv").unlink()
    return root


def run(*arguments: Any) -> int:
    return main(["data", *map(str, arguments)])


def test_index_is_a_data_set(folders: Path, capsys: Printed) -> None:
    assert run("index", folders / "rgb", folders / "depth", "--intrinsics", "60,61,32,24") == 0
    printed = capsys.readouterr().out
    assert "12 frames paired by name" in printed and f"next: depthray data check {folders}" in printed
    rows = read_index(folders)
    assert rows[0]["rgb"].startswith("rgb/") and rows[0]["depth"].startswith("depth/") and rows[0]["fy"] == "61"
    assert sources.recognise(folders) == "folder"
    assert run("check", folders) == 0
    assert "12 frames of 3 scenes: no findings" in capsys.readouterr().out


def test_missing_index_is_named_with_the_command_that_writes_it(folders: Path, capsys: Printed) -> None:
    assert run("check", folders) == 3
    assert f"no index.csv there; for frames in files of your own `depthray data index {folders / 'rgb'} " in (
        capsys.readouterr().err
    )


def test_files_left_out_are_counted_and_named(folders: Path, capsys: Printed) -> None:
    shutil.rmtree(folders / "labels", ignore_errors=True)
    (folders / "depth/s0-000.png").unlink()
    assert run("index", folders / "rgb", folders / "depth", "--out", folders / "mine.csv") == 0
    printed = capsys.readouterr().out
    assert "skipped: 1 colour file without depth: s0-000.jpg" in printed
    assert f"next: depthray data check {folders / 'mine.csv'}" in printed


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (3, ["rgb", "nowhere"], "nowhere: No such file or directory"),
        (3, ["rgb", "index.csv"], "index.csv: not a folder"),
        (3, ["depth", "rgb"], "swap them"),
        (2, ["rgb"], "rgb: no shards, which alone are indexed by themselves; give DEPTH_DIR too"),
        (2, ["rgb", "depth", "--scenes", "folder"], "(did you mean 'folders'?)"),
        (2, ["rgb", "depth", "--output", "x.csv"], "(did you mean '--out'?)"),
        (3, ["rgb", "depth"], "index.csv exists; remove it, or give another --out FILE.csv"),
        (3, ["rgb", "empty", "--out", "x.csv"], "empty: no depth files in it or below"),
        (3, ["rgb", "depth", "--out", "x.csv", "--scenes", "times"], "has no time in its name"),
        (2, ["rgb", "depth", "--out", "x.txt"], "x.txt: an index is a file with a name that ends in .csv"),
        (2, ["rgb", "depth", "--gap", "0"], "--gap 0: give seconds above 0"),
        (2, ["rgb", "depth", "--intrinsics", "1,2"], "give four numbers"),
        (5, ["rgb", "depth", "--out", "no/x.csv"], "x.csv: cannot be written: No such file or directory"),
    ],
)
def test_mistakes(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed, code: int, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folders)
    Path("index.csv").write_text("rgb,depth,scene\n")
    Path("empty").mkdir()
    before = sorted(folders.rglob("*"))
    assert run("index", *arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and sorted(folders.rglob("*")) == before
