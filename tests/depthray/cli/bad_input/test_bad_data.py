"""Data sets with faults through the command line: an exit code and one line on stderr that names the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bad_input import FILES, SHARDS, SIZE, Fails, Harm, cut, flip, link_to_itself
from frames import depth_map, read_index, write_index

import cluster.train
from depthray.__main__ import main
from depthray.data.sources.folder import CsvFolder


def break_row(root: Path, number: int, **values: str) -> None:
    rows = read_index(root)
    rows[number] |= values
    write_index(root, rows)


def add_column(root: Path, name: str, value: Callable[[int], str]) -> None:
    write_index(root, [row | {name: value(number)} for number, row in enumerate(read_index(root))])


def depth_as(change: Callable[[Any], Any]) -> Harm:
    """Give every frame its depth as .npy in metres, changed."""

    def harm(root: Path) -> None:
        for number in range(len(read_index(root))):
            np.save(root / f"{number}.npy", change(depth_map(number, SIZE)))
        add_column(root, "depth", "{}.npy".format)

    return harm


def repeat_row(root: Path) -> None:
    depth_as(lambda depth: depth)(root)
    break_row(root, 4, rgb="rgb/s0-000.jpg")


def write_depth(shape: tuple[int, ...], dtype: Any) -> Harm:
    return lambda root: cv2.imwrite(str(root / "depth/s1-001.png"), np.ones(shape, dtype))


FLOAT = "data.encoding=float_m"
UNUSABLE: list[tuple[Harm, str, str]] = [
    (lambda root: (root / "depth/s1-001.png").unlink(), "depth/s1-001.png: No such file", ""),
    (lambda root: (root / "rgb/s1-001.jpg").write_text("text"), "rgb/s1-001.jpg: not a readable image (4 bytes)", ""),
    (lambda root: link_to_itself(root / "rgb/s1-001.jpg"), "rgb/s1-001.jpg: Too many levels of symbolic links", ""),
    (write_depth(SIZE, np.uint8), "stored as uint8, but encoding 'uint16_mm' is uint16", ""),
    (write_depth((40, 64), np.uint16), "size mismatch, depth is 64x40 but rgb is 64x48", ""),
    (write_depth((*SIZE, 3), np.uint16), "depth has shape (48, 64, 3), but one channel", ""),
    (depth_as(lambda depth: depth.astype(object)), ".npy: not a readable .npy file", FLOAT),
    (depth_as(lambda depth: depth.astype(np.int32)), "stored as int32, but encoding 'float_m'", FLOAT),
    (lambda root: break_row(root, 4, rgb="rgb/s0-000.jpg"), "1 frame ids are used twice, first 'rgb/s0-000'", ""),
    (lambda root: add_column(root, "split", lambda i: "val" if i % 2 else ""), "is declared train and val", ""),
    (lambda root: add_column(root, "split", lambda i: "valid"), "unknown split 'valid' (did you mean 'val'?)", ""),
    (lambda root: add_column(root, "split", lambda i: "val"), "no frames to train on", ""),
    (lambda root: write_index(root, read_index(root)[:1]), "no frames to validate on", ""),
    (lambda root: (root / "index.csv").write_text("rgb,depth,scene\n"), "the data set has no frames", ""),
    (lambda root: (root / "index.csv").write_text("rgb,scene\na,b\n"), "no column 'depth'", ""),
    (
        lambda root: (root / "index.csv").write_text("rgb;depth;scene\n"),
        "separate its fields by commas, not by ';'",
        "",
    ),
    (lambda root: (root / "index.csv").write_text("RGB,depth,scene\n"), "write 'rgb' for 'RGB'", ""),
    (lambda root: (root / "index.csv").write_text("rgb,depth\n"), "scene names the room or recording", ""),
    (lambda root: (root / "index.csv").write_bytes(b"\xff\xfe"), "not a CSV file in UTF-8", ""),
    (lambda root: (root / "index.csv").unlink(), "index.csv: No such file", ""),
]
UNMEASURED: list[Harm] = [
    depth_as(lambda depth: depth * np.nan),
    depth_as(lambda depth: depth + np.inf),
    depth_as(lambda depth: -depth),
    depth_as(lambda depth: 0 * depth),
]


@pytest.mark.parametrize(("harm", "message", "argument"), UNUSABLE)
def test_train_on_a_bad_folder(
    fails: Fails, tmp_path: Path, data: Path, harm: Harm, message: str, argument: str
) -> None:
    harm(data)
    arguments = [*FILES, *([argument] if argument else [])]
    fails(3, "train", "demo", "--local", *arguments, "--data", data, "--out", tmp_path / "out", message=message)


@pytest.mark.parametrize("harm", UNMEASURED)
def test_train_on_depth_that_measures_nothing(fails: Fails, tmp_path: Path, data: Path, harm: Harm) -> None:
    harm(data)
    arguments = ["train", "demo", "--local", *FILES, FLOAT, "--data", data, "--out", tmp_path / "out"]
    fails(3, *arguments, message=("none of 4 frames has a pixel", "is data.encoding right?"))


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        *((harm, "empty depth") for harm in UNMEASURED),
        (depth_as(lambda depth: 1000 * depth), "millimetres read as metres?"),
        (depth_as(lambda depth: depth / 1000), "metres read as millimetres?"),
        (depth_as(lambda depth: np.where(depth > 2, -1, depth)), "negative values, read as unmeasured"),
        (repeat_row, "duplicate id"),
    ],
)
def test_check_finds(capsys: pytest.CaptureFixture[str], data: Path, harm: Harm, kind: str) -> None:
    harm(data)
    assert main(["data", "check", str(data), "--encoding", "float_m"]) == 3
    out, err = capsys.readouterr()
    assert kind in " ".join(out.replace("│", " ").split()) and not err, "the table wraps beside long paths"


def test_file_changed_during_the_run(fails: Fails, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: CsvFolder, index: int) -> Any:
        os.utime(data / "depth/s0-000.png", ns=(1, 1))
        return whole(source, index)

    whole = CsvFolder.read
    monkeypatch.setattr(CsvFolder, "read", read)
    arguments = ["train", "demo", "--local", *FILES, "--data", data, "--out", tmp_path / "out"]
    fails(3, *arguments, message="depth/s0-000.png: changed since the data set was opened")


def test_bad_image_read_by_a_loader_process(fails: Fails, tmp_path: Path, data: Path) -> None:
    (data / "rgb/s1-001.jpg").write_text("text")
    arguments = [*FILES, "data.workers=2", "--data", data, "--out", tmp_path / "out"]
    fails(3, "train", "demo", "--local", *arguments, message="rgb/s1-001.jpg: not a readable image")


def test_fewer_frames_than_workers(fails: Fails, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.train, "train_on_ray", lambda *_: pytest.fail("Ray was started"))
    arguments = [*FILES, "train.batch_size=16", "--workers", "16", "--data", data, "--out", tmp_path / "out"]
    fails(3, "train", "demo", *arguments, message="8 training frames do not fill one batch of 16")


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SHARD_HARMS: list[tuple[Harm, str]] = [
    (cut, "not a complete shard (cut off"),
    (lambda path: path.write_bytes(b""), "not a complete shard (cut off"),
    (become_folder, "not a complete shard (Is a directory)"),
    (link_to_itself, "not a complete shard (Too many levels"),
]


@pytest.mark.parametrize(("harm", "message"), SHARD_HARMS)
def test_bad_shard(fails: Fails, trained: Path, tmp_path: Path, data: Path, harm: Harm, message: str) -> None:
    packed = tmp_path / "packed"
    assert main(["data", "pack", str(data), str(packed)]) == 0
    harm(packed / "shard-00000.h5")
    message = f"shard-00000.h5: {message}"
    fails(3, "train", "demo", "--local", *SHARDS, "--data", packed, "--out", tmp_path / "out", message=message)
    fails(3, "evaluate", trained, "--data", packed, message=message)
    for verb in ("check", "stats"):
        fails(3, "data", verb, packed, message=message)


def test_bad_index_of_a_shard(fails: Fails, tmp_path: Path, data: Path) -> None:
    """Where the folder has an index of its own, that of a shard is not read to train; a check reads all there is."""
    packed = tmp_path / "packed"
    assert main(["data", "pack", str(data), str(packed)]) == 0
    flip(packed / "shard-00000.h5", 0.999)
    message = "shard-00000.h5: not a complete shard (its index is damaged)"
    assert main(["data", "check", str(packed)]) == 3
    shutil.rmtree(packed / "index")
    fails(3, "train", "demo", "--local", *SHARDS, "--data", packed, "--out", tmp_path / "out", message=message)


def test_data_from_nowhere(fails: Fails, trained: Path, tmp_path: Path, data: Path, file: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.zip").touch()
    places = {
        tmp_path / "nowhere": "nowhere does not exist",
        loop: "loop is a broken link",
        file: "no data set of a known form (arkitscenes, ",
        tmp_path / "empty": "no index.csv there",
        tmp_path / "set.zip": "an archive; unpack it",
    }
    for place, message in places.items():
        fails(3, "data", "pack", place, tmp_path / "packed", message=message)
        fails(3, "data", "check", place, message=message)
        fails(3, "data", "stats", place, message=message)
        fails(3, "evaluate", trained, "--data", place, message=message)
    fails(3, "evaluate", trained, "--data", loop, "--source", "folder", message="Too many levels of symbolic links")
    fails(2, "evaluate", trained, "--data", data, "--source", "foldr", message="did you mean 'folder'?")


def test_train_on_what_is_no_data_set(fails: Fails, tmp_path: Path, data: Path) -> None:
    (data / "index.csv").unlink()
    (tmp_path / "set.zip").touch()
    places = {
        data: ("no index.csv there", f"`depthray data index {data}/rgb {data}/depth` writes one"),
        tmp_path / "set.zip": "an archive; unpack it",
    }
    for place, message in places.items():
        fails(3, "train", "demo", "--local", "--data", place, "--out", tmp_path / "out", message=message)
        fails(3, "tune", "demo", "--data", place, "--out", tmp_path / "out", message=message)
    assert not (tmp_path / "out").exists()


def test_evaluate_without_depth(fails: Fails, trained: Path, data: Path) -> None:
    for path in (data / "depth").iterdir():
        cv2.imwrite(str(path), np.zeros(SIZE, np.uint16))
    fails(3, "evaluate", trained, "--data", data, message="none of 4 frames has a pixel that protocol plain scores")
    add_column(data, "depth", lambda _: "")
    fails(3, "evaluate", trained, "--data", data, message="frame 0 (line 2) has no depth")


def test_training_on_a_wrong_unit_is_reported(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    depth_as(lambda depth: 1000 * depth)(data)
    arguments = ["train", "demo", "--local", *FILES, FLOAT, "--data", data, "--out", tmp_path / "out"]
    assert main([str(argument) for argument in arguments]) == 3
    assert "millimetres read as metres? declare the right data.encoding" in capsys.readouterr().out
