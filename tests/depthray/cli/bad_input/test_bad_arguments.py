"""Bad arguments of the commands that read and write files: an exit code and one line on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bad_input import Fails

from depthray.__main__ import main
from depthray.cli import predict
from depthray.cli.predicting.image_targets import READ


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (3, ["--split", "test"], "split 'test' has no frames"),
        (2, ["--split", "tset"], "did you mean 'test'?"),
        (2, ["optim.lr=1"], "can override data.* and eval.* only"),
        (2, ["eval.protocl=plain"], "unknown key 'eval.protocl' (did you mean 'protocol'?)"),
        (3, ["data.encoding=uint8_10m"], "declare the right data.encoding"),
        (2, ["--out", "FILE"], "cannot write the report: "),
    ],
)
def test_evaluate(
    fails: Fails, trained: Path, data: Path, file: Path, code: int, arguments: list[str], message: str
) -> None:
    arguments = [str(file) if argument == "FILE" else argument for argument in arguments]
    fails(code, "evaluate", trained, "--data", data, *arguments, message=message)


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (3, ["TEXT"], "text.png: not a JPEG, PNG, WebP, TIFF"),
        (3, ["nowhere.png"], "nowhere.png: no such file"),
        (3, ["EMPTY"], "no JPEG, PNG, WebP, TIFF"),
        (3, ["FILMS"], ("video in", "skipped: 2 files of", "a.raw, b.txt; convert others first")),
        (3, ["nowhere.png", "nor-here.png"], "nowhere.png: no such file (nor any of 1 others)"),
        (5, ["IMAGE", "--out", "FILE"], "cannot be written: File exists"),
        (5, ["IMAGE", "--out", "FILE/below"], "cannot be written: Not a directory"),
        (5, [f"{300 * 'x'}.png"], "File name too long"),
        (2, ["IMAGE", "--device", "cud"], "device cud: there is none of that name"),
        (2, ["IMAGE", "--device", "meta"], "device meta: PyTorch cannot compute on it here"),
        (2, ["IMAGE", "--format", "pgn"], "did you mean 'png'?"),
        (2, ["IMAGE", "--intrinsics", "1,2"], "give four numbers"),
        (3, ["IMAGE", "--max-megapixels", "0.001"], "60x40 pixels"),
    ],
)
def test_predict(
    fails: Fails,
    trained: Path,
    tmp_path: Path,
    image: Path,
    file: Path,
    code: int,
    arguments: list[str],
    message: tuple[str, ...] | str,
) -> None:
    (tmp_path / "text.png").write_text("hello")
    for name in ("empty", "films"):
        (tmp_path / name).mkdir()
    for name in ("a.raw", "b.txt"):
        (tmp_path / "films" / name).touch()
    known = {
        "IMAGE": image,
        "TEXT": tmp_path / "text.png",
        "EMPTY": tmp_path / "empty",
        "FILMS": tmp_path / "films",
    }
    named = [known.get(argument, argument.replace("FILE", str(file))) for argument in arguments]
    fails(code, "predict", trained, "--out", tmp_path / "out", *named, message=message)


def test_image_before_the_checkpoint(fails: Fails, trained: Path, image: Path) -> None:
    fails(2, "predict", image, trained, message="grey.png is an image or a video; give the checkpoint or run first")


@pytest.mark.parametrize("command", ["check", "stats"])
def test_empty_path(fails: Fails, command: str) -> None:
    fails(2, "data", command, "", message="an argument is empty, perhaps a variable of the shell")


def test_one_bad_image_of_two(fails: Fails, trained: Path, tmp_path: Path, image: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    fails(
        3, "predict", trained, tmp_path / "text.png", image, "--out", tmp_path / "out", message="text.png: not a JPEG"
    )
    assert (tmp_path / "out/grey.depth.png").exists()


def test_files_of_a_folder_that_are_skipped_are_named(
    trained: Path, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(image.read_bytes())
    (folder / "notes.txt").touch()
    (folder / "a.depth.png").touch()  # an output of an earlier call
    assert main(["predict", str(trained), str(folder), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "1 of 1 images predicted" in printed.out
    said = [line for line in printed.err.splitlines() if not line.startswith("WARNING: ")]  # that it is stretched
    assert said == [f"skipped: 1 file of {folder}, not {READ}: notes.txt"]


def test_a_camera_of_another_size_is_a_warning(
    trained: Path, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--intrinsics", "519,519,325.6,253.7", "--format", "ply", "--out", str(tmp_path / "out")]
    assert main(["predict", str(trained), str(image), *arguments]) == 0
    line = capsys.readouterr().err.splitlines()[0]  # the next says that the image is stretched
    assert line.startswith(
        f"WARNING: {image}: --intrinsics: the principal point (325.6, 253.7) is outside of the 60x40"
    )


def test_a_missing_image_is_reported_before_the_network_is_loaded(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "load", lambda *_, **__: pytest.fail("the network was loaded"))
    fails(3, "predict", tmp_path / "run", tmp_path / "nowhere.jpg", message="nowhere.jpg: no such file")


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (5, ["pack", "DATA", "FILE"], "file: cannot be written: File exists;"),
        (5, ["pack", "DATA", "FILE/below"], "below: cannot be written: Not a directory;"),
        (2, ["pack", "DATA", "OUT", "--frames-per-shard", "0"], "--frames-per-shard must be at least 1"),
        (3, ["pack", "DATA", "OUT", "--index", "other.csv"], "other.csv does not exist"),
        (2, ["check", "DATA", "data.max_dept=3"], "did you mean 'max_depth'?"),
        (2, ["stats", "DATA", "--protocol", "nyu"], "did you mean 'nyu-s2d'?"),
        (5, ["render", "FILE", "--frames", "1", "--size", "16", "16"], "file: cannot be written: Not a directory;"),
        (3, ["render", "DATA", "--frames", "1"], "index.csv exists"),
        (2, ["render", "OUT", "--frames", "0"], "--frames 0: must be at least 1"),
        (2, ["render", "OUT", "--size", "16", "0"], "--size 0: must be at least 1"),
        (2, ["render", "OUT", "--seed", "-1"], "--seed -1: must be at least 0"),
    ],
)
def test_datasets(
    fails: Fails, tmp_path: Path, data: Path, file: Path, code: int, arguments: list[str], message: str
) -> None:
    known = {"DATA": data, "OUT": tmp_path / "out"}
    fails(
        code,
        "data",
        *(known.get(argument, argument.replace("FILE", str(file))) for argument in arguments),
        message=message,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["recipe", "schema"], ["data", "--help"]])
def test_reader_that_has_gone(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "depthray", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(writing)
    # On a busy machine it takes so long that it says what it waits for.
    said = [line for line in done.stderr.splitlines() if not line.startswith("waiting for ")]
    assert (done.returncode, said) == (141, [])
