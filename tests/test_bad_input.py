"""Bad input through the command line, in process: an exit code and one line on stderr that says what and where.

Recipes and words, run folders, checkpoints, data sets, images, places to write. What a message must say in every detail
is tested beside the code that says it; here each class of mistake is made once as a user would make it.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from checkpoints import Hostile, reseal
from frames import depth_map, folder_dataset, read_index, write_index

import cluster.train
from depthray import checkpoint
from depthray.__main__ import main
from depthray.data.sources.folder import Folder
from depthray.state import begin

SIZE = (48, 64)
PLAIN = ["data.size=32,64", "train.epochs=1", "train.precision=fp32", "augment.brightness=0", "augment.contrast=0"]
ROOMS = [*PLAIN, "data.frames=24", "train.batch_size=8", "optim.lr=0.002"]
FILES = [*PLAIN, "data.source=folder", "data.val_fraction=0.34", "train.batch_size=4"]  # 8 of 12 frames train
SHARDS = [*FILES, "data.source=shards"]
NEITHER = "neither a checkpoint nor a run folder"

Fails = Callable[..., None]
Harm = Callable[[Path], object]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run the command line and see it end with a code and one line that says all of `said`; the line is printed."""

    def run(code: int, *words: Any, said: tuple[str, ...] | str) -> None:
        capsys.readouterr()
        found = main([str(word) for word in words])
        lines = capsys.readouterr().err.splitlines()
        assert found == code, lines
        assert len(lines) == 1 and lines[0].startswith("depthray: "), lines
        for part in [said] if isinstance(said, str) else said:
            assert part in lines[0], lines[0]

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on rendered rooms. Not to be changed."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "demo", "--local", *ROOMS, "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be harmed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "grey.png"
    cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_dataset(tmp_path / "data", size=SIZE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file, where a folder is wanted."""
    path = tmp_path / "file"
    path.write_text("x")
    return path


def only(run: Path) -> Path:
    """The one checkpoint of a run."""
    (path,) = (run / "checkpoints").iterdir()
    return path


# Recipes and words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optim: {lrr: 1}", "unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ('"a\\nb": 1', "unknown key 'a b'"),
        ("1: 2", "1=1: keys should be strings"),
        ("optim: 3", "optim=3"),
        ("train: {epochs: three}", "train.epochs='three'"),
        ("train: {batch_size: 0}", "train.batch_size=0"),
        ("optim: {lr: .nan}", "optim.lr=nan"),
        ("data: {min_depth: 5, max_depth: 1}", "data.min_depth must be below data.max_depth"),
        ("data: {source: synthetic, root: /x}", "data.source=synthetic draws its frames and would ignore data.root=/x"),
        ("loss: {l1: 0}", "every loss weight is 0"),
        ("seed: 1\nseed: 2", "key 'seed' is given twice"),
        ("seed: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("? [1]\n: 2", "not a readable YAML file: unhashable"),
        ("seed: 2020-13-45", "not a readable YAML file: month must be in 1..12"),
        ("seed: " + 300 * "[", "not a readable YAML file"),
        ("seed: [", "not a readable YAML file"),
        ("", "a recipe is a mapping of sections"),
        (b"\xff\xfe\x00", "not a readable YAML file: 'utf-8' codec"),
    ],
)
def test_recipe_file(fails: Fails, tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    fails(2, "train", path, "--local", "--out", tmp_path / "out", said=said)


def test_no_recipe_file(fails: Fails, tmp_path: Path) -> None:
    fails(2, "train", tmp_path, "--local", said=(f"no recipe '{tmp_path}'", "path/to/it.yaml"))
    fails(2, "train", tmp_path / "mine.yaml", "--local", said="mine.yaml does not exist")
    (tmp_path / "mine.yaml").mkdir()
    fails(2, "train", tmp_path / "mine.yaml", "--local", said="mine.yaml is not a file")
    fails(2, "recipe", "show", "deno", said="did you mean 'demo'?")
    fails(2, "train", "--local", said=("which recipe? choose from: ", "demo, "))


@pytest.mark.parametrize(
    ("code", "word", "said"),
    [
        (2, "opitm.lr=1", "unknown key 'opitm' (did you mean 'optim'?)"),
        (2, "optim.lr=fast", "optim.lr='fast'"),
        (2, "optim.lr=-1", "optim.lr=-1"),
        (2, "data.size=32", "data.size=32"),
        (2, "data.size=32,[", "data.size.1='['"),
        (2, "data.inputs=image,imge", "'imge'"),
        (2, "model.encoder=resnet344", "did you mean 'resnet34'?"),
        (2, "model.pretrained=true", "no ImageNet weights for encoder 'tiny'"),
        (2, "data.encoding=cm", "no depth encoding data.encoding='cm'"),
        (2, "eval.protocol=nyu", "did you mean 'nyu-s2d'?"),
        (2, "train.accumulate=3", "train.batch_size=8 is the global batch and must divide by"),
        (3, "train.batch_size=100", "20 training frames do not fill one batch of 100"),
        (3, "curriculum.chunks=9", "lower train.batch_size or curriculum.chunks"),
        (3, "data.frames=1", "no frames to validate on"),
        (3, "data.val_fraction=0", "data.val_fraction is 0"),
        (2, "nonsense", "'nonsense' is neither a flag nor a word"),
        (2, "--workers=0", "--workers 0"),
        (2, "--workers=2", "--local is one process"),
        (2, "train.epochs=true", "train.epochs=True"),
        (2, "seed=9999999999999999999999", "seed=9999999999999999999999"),
        (2, "data.size=1000000,1000000", "data.size.0=1000000"),
        (2, "--resume", "--resume: "),
    ],
)
def test_words(fails: Fails, tmp_path: Path, code: int, word: str, said: str) -> None:
    fails(code, "train", "demo", "--local", *ROOMS, "--out", tmp_path / "out", word, said=said)


def test_unknown_command(fails: Fails) -> None:
    fails(2, "trian", said="no command 'trian' (did you mean 'train'?)")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there(fails: Fails, tmp_path: Path) -> None:
    fails(5, "train", "demo", "--local", *ROOMS, "--gpu", "--out", tmp_path / "out", said="--gpu: PyTorch finds no GPU")


# Runs


def test_run_folder_that_cannot_be_made(fails: Fails, file: Path) -> None:
    for out in (file, file / "below"):
        fails(2, "train", "demo", "--local", *ROOMS, "--out", out, said=(str(out), "Not a directory"))


def test_same_command_again_after_a_mistake_in_the_data(fails: Fails, tmp_path: Path, data: Path) -> None:
    words = ["train", "demo", "--local", *FILES, "--data", data, "--out", tmp_path / "out"]
    (data / "index.csv").rename(data / "later.csv")
    for _ in range(2):
        fails(3, *words, said="index.csv: No such file")


def test_run_name_used_before(fails: Fails, trained: Path) -> None:
    fails(2, "train", "demo", "--local", *ROOMS, "--out", trained, said=("already holds a run", "--resume"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optim.lr=0.1", "optim.lr was 0.002, is 0.1"),
        ("model.decoder=linear", "model.decoder was None, is linear"),
        ("train.batch_size=4", "train.batch_size was 8, is 4"),
        ("data.frames=32", "data.frames was 24, is 32"),
    ],
)
def test_resume_as_another_run(fails: Fails, run: Path, word: str, said: str) -> None:
    fails(2, "train", "--local", "--out", run, "--resume", word, said=said)


def test_resume_on_workers_the_batch_cannot_be_dealt_to(
    fails: Fails, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.train, "train_on_ray", lambda *_: pytest.fail("Ray was started"))
    fails(2, "train", "--out", run, "--resume", "--workers", "3", said="must divide by --workers 3")


def test_resume_on_other_data(fails: Fails, tmp_path: Path, data: Path) -> None:
    words = ["train", "demo", "--local", *FILES, "--data", data, "--out", tmp_path / "out"]
    assert main([*map(str, words)]) == 0
    write_index(data, read_index(data)[1:])
    fails(3, *words, "--resume", "train.epochs=2", said=(str(data), "fingerprint differs"))


def test_links_that_lead_to_themselves(fails: Fails, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    fails(3, "train", "demo", "--local", *FILES, "--data", loop, "--out", tmp_path / "out", said="Too many levels")
    fails(2, "train", "demo", "--local", *ROOMS, "--out", loop, said="cannot write the run folder")


# Checkpoints


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


CHECKPOINT_HARMS: list[tuple[Harm, str]] = [
    (lambda path: cut(path / "model.safetensors"), "model.safetensors: "),
    (lambda path: flip(path / "state.pt"), "state.pt: damaged"),
    (lambda path: flip(path / "recipe.yaml"), "recipe.yaml: damaged"),
    (lambda path: flip(path / "manifest.json"), "manifest.json: damaged"),
    (lambda path: (path / "metrics.json").unlink(), "metrics.json is missing"),
    (lambda path: (path / "recipe.yaml").unlink(), "recipe.yaml is missing"),
    (empty, "has no manifest.json"),
]


@pytest.mark.parametrize(("harm", "said"), CHECKPOINT_HARMS)
def test_damaged_checkpoint(fails: Fails, run: Path, image: Path, harm: Harm, said: str) -> None:
    path = only(run)
    harm(path)
    fails(3, "predict", path, image, "--out", run / "out", said=said)
    fails(3, "evaluate", path, said=said)
    fails(3, "train", "--local", "--out", run, "--resume", "train.epochs=2", said="none of 1 checkpoints is good")


def test_damaged_recipe_of_a_checkpoint_found_through_its_run(fails: Fails, run: Path, image: Path) -> None:
    flip(only(run) / "recipe.yaml")
    fails(3, "predict", run, image, said="recipe.yaml: damaged")


def test_resume_goes_back_to_the_checkpoint_before(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = only(run)
    shutil.copytree(good, good.with_name("epoch-0002-step-00000004"))
    cut(good.with_name("epoch-0002-step-00000004") / "state.pt")
    assert main(["train", "--local", "--out", str(run), "--resume"]) == 0
    said = capsys.readouterr().out
    assert "going back to the checkpoint before" in said and f"resumed from {good.name}" in said


@pytest.mark.parametrize("name", ["state.pt", "model.safetensors"])
def test_hostile_pickle(fails: Fails, run: Path, name: str) -> None:
    path, mark = only(run), run / "mark"
    (path / name).write_bytes(pickle.dumps(Hostile(mark)))
    fails(3, "evaluate", path, said=f"{name}: ")
    reseal(path)
    fails(3, "train", "--local", "--out", run, "--resume", "train.epochs=2", said=f"{name}: ")
    assert not mark.exists()


def test_checkpoint_of_another_architecture(fails: Fails, run: Path, image: Path) -> None:
    path = only(run)
    contents = checkpoint.load(path, state=True)
    other = contents.recipe.model_copy(update={"model": contents.recipe.model.model_copy(update={"decoder": "linear"})})
    shutil.rmtree(path)
    written = begin(other, torch.device("cpu")).contents({"abs_rel": 1.0}, fingerprint=contents.fingerprint)
    path = checkpoint.write(run / "checkpoints", written)
    fails(3, "train", "--local", "--out", run, "--resume", said=("does not fit this recipe", "decoder"))
    (path / "recipe.yaml").write_bytes((run / "recipe.yaml").read_bytes())
    reseal(path)
    fails(3, "predict", path, image, said="weights do not fit the recipe")
    fails(3, "evaluate", path, said="weights do not fit the recipe")


@pytest.mark.parametrize("word", ["predict", "evaluate"])
def test_no_checkpoint(fails: Fails, trained: Path, image: Path, file: Path, data: Path, word: str) -> None:
    images = [image] if word == "predict" else []
    for path in (file.with_name("nowhere"), file, data, only(trained) / "model.safetensors"):
        fails(3, word, path, *images, said=(str(path), NEITHER))


# Data sets


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


def link_to_itself(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(path)


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
    (lambda root: (root / "index.csv").write_bytes(b"\xff\xfe"), "not a CSV file in UTF-8", ""),
    (lambda root: (root / "index.csv").unlink(), "index.csv: No such file", ""),
]
UNMEASURED: list[Harm] = [
    depth_as(lambda depth: depth * np.nan),
    depth_as(lambda depth: depth + np.inf),
    depth_as(lambda depth: -depth),
    depth_as(lambda depth: 0 * depth),
]


@pytest.mark.parametrize(("harm", "said", "word"), UNUSABLE)
def test_train_on_a_bad_folder(fails: Fails, tmp_path: Path, data: Path, harm: Harm, said: str, word: str) -> None:
    harm(data)
    words = [*FILES, *([word] if word else [])]
    fails(3, "train", "demo", "--local", *words, "--data", data, "--out", tmp_path / "out", said=said)


@pytest.mark.parametrize("harm", UNMEASURED)
def test_train_on_depth_that_measures_nothing(fails: Fails, tmp_path: Path, data: Path, harm: Harm) -> None:
    harm(data)
    words = ["train", "demo", "--local", *FILES, FLOAT, "--data", data, "--out", tmp_path / "out"]
    fails(3, *words, said=("none of 4 frames has a pixel", "is data.encoding right?"))


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        *((harm, "empty depth") for harm in UNMEASURED),
        (depth_as(lambda depth: 1000 * depth), "millimetres read as metres?"),
        (depth_as(lambda depth: depth / 1000), "metres read as millimetres?"),
        (depth_as(lambda depth: np.where(depth > 2, np.nan, depth)), "NaN values, read as unmeasured"),
        (lambda root: depth_as(lambda depth: depth)(root) or break_row(root, 4, rgb="rgb/s0-000.jpg"), "duplicate id"),
    ],
)
def test_check_finds(capsys: pytest.CaptureFixture[str], data: Path, harm: Harm, kind: str) -> None:
    harm(data)
    assert main(["data", "check", str(data), "--encoding", "float_m"]) == 3
    out, err = capsys.readouterr()
    assert kind in " ".join(out.replace("│", " ").split()) and not err, "the table wraps beside long paths"


def test_file_changed_during_the_run(fails: Fails, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: Folder, index: int) -> Any:
        os.utime(data / "depth/s0-000.png", ns=(1, 1))
        return whole(source, index)

    whole = Folder.read
    monkeypatch.setattr(Folder, "read", read)
    words = ["train", "demo", "--local", *FILES, "--data", data, "--out", tmp_path / "out"]
    fails(3, *words, said="depth/s0-000.png: changed since the data set was opened")


def test_bad_image_met_by_a_loader_process(fails: Fails, tmp_path: Path, data: Path) -> None:
    (data / "rgb/s1-001.jpg").write_text("text")
    words = [*FILES, "data.workers=2", "--data", data, "--out", tmp_path / "out"]
    fails(3, "train", "demo", "--local", *words, said="rgb/s1-001.jpg: not a readable image")


def test_fewer_frames_than_workers(fails: Fails, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.train, "train_on_ray", lambda *_: pytest.fail("Ray was started"))
    words = [*FILES, "train.batch_size=16", "--workers", "16", "--data", data, "--out", tmp_path / "out"]
    fails(3, "train", "demo", *words, said="8 training frames do not fill one batch of 16")


SHARD_HARMS: list[tuple[Harm, str]] = [
    (cut, "not a whole shard (cut off"),
    (lambda path: path.write_bytes(b""), "not a whole shard (cut off"),
    (lambda path: flip(path, 0.999), "not a whole shard (its index is damaged)"),
    (lambda path: (path.unlink(), path.mkdir()), "not a whole shard (Is a directory)"),
    (link_to_itself, "not a whole shard (Too many levels"),
]


@pytest.mark.parametrize(("harm", "said"), SHARD_HARMS)
def test_bad_shard(fails: Fails, trained: Path, tmp_path: Path, data: Path, harm: Harm, said: str) -> None:
    packed = tmp_path / "packed"
    assert main(["data", "pack", str(data), str(packed)]) == 0
    harm(packed / "shard-00000.h5")
    said = f"shard-00000.h5: {said}"
    fails(3, "train", "demo", "--local", *SHARDS, "--data", packed, "--out", tmp_path / "out", said=said)
    fails(3, "evaluate", trained, "--data", packed, said=said)
    for verb in ("check", "stats"):
        fails(3, "data", verb, packed, said=said)


def test_data_from_nowhere(fails: Fails, trained: Path, tmp_path: Path, data: Path, file: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "empty").mkdir()
    nothing = "looks like none of bts, "
    places = {
        tmp_path / "nowhere": "nowhere does not exist",
        loop: "loop is a link that leads nowhere",
        file: nothing,
        tmp_path / "empty": nothing,
    }
    for place, said in places.items():
        fails(3, "data", "pack", place, tmp_path / "packed", said=said)
        fails(3, "data", "check", place, said=said)
        fails(3, "data", "stats", place, said=said)
        fails(3, "evaluate", trained, "--data", place, said=said)
    fails(3, "evaluate", trained, "--data", loop, "--source", "folder", said="Too many levels of symbolic links")
    fails(2, "evaluate", trained, "--data", data, "--source", "foldr", said="did you mean 'folder'?")


# Reading and writing of the other commands


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (3, ["--split", "test"], "split 'test' has no frames"),
        (2, ["--split", "tset"], "did you mean 'test'?"),
        (2, ["optim.lr=1"], "takes words of data.* and eval.* only"),
        (2, ["eval.protocl=plain"], "unknown key 'eval.protocl' (did you mean 'protocol'?)"),
        (3, ["data.encoding=uint8_10m"], "declare the right data.encoding"),
        (2, ["--out", "FILE"], "cannot write the report to"),
    ],
)
def test_evaluate(fails: Fails, trained: Path, data: Path, file: Path, code: int, words: list[str], said: str) -> None:
    words = [str(file) if word == "FILE" else word for word in words]
    fails(code, "evaluate", trained, "--data", data, *words, said=said)


def test_evaluate_without_depth(fails: Fails, trained: Path, data: Path) -> None:
    for path in (data / "depth").iterdir():
        cv2.imwrite(str(path), np.zeros(SIZE, np.uint16))
    fails(3, "evaluate", trained, "--data", data, said="none of 4 frames has a pixel that protocol plain scores")
    add_column(data, "depth", lambda _: "")
    fails(3, "evaluate", trained, "--data", data, said="frame 0 (line 2) has no depth")


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (3, ["TEXT"], "text.png: not a JPEG, PNG or WebP file"),
        (3, ["nowhere.png"], "nowhere.png: no such file"),
        (3, ["EMPTY"], "no JPEG, PNG or WebP image in"),
        (5, ["IMAGE", "--out", "FILE"], "cannot be written: File exists"),
        (5, ["IMAGE", "--out", "FILE/below"], "cannot be written: Not a directory"),
        (5, [f"{300 * 'x'}.png"], "File name too long"),
        (2, ["IMAGE", "--device", "cud"], "--device: no device 'cud'"),
        (2, ["IMAGE", "--device", "meta"], "--device=meta: PyTorch cannot compute on it here"),
        (2, ["IMAGE", "--format", "pgn"], "did you mean 'png'?"),
        (2, ["IMAGE", "--intrinsics", "1,2"], "give four numbers"),
        (3, ["IMAGE", "--max-megapixels", "0.001"], "60x40 pixels"),
    ],
)
def test_predict(
    fails: Fails, trained: Path, tmp_path: Path, image: Path, file: Path, code: int, words: list[str], said: str
) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    known = {"IMAGE": image, "TEXT": tmp_path / "text.png", "EMPTY": tmp_path / "empty"}
    named = [known.get(word, word.replace("FILE", str(file))) for word in words]
    fails(code, "predict", trained, "--out", tmp_path / "out", *named, said=said)


def test_one_bad_image_of_two(fails: Fails, trained: Path, tmp_path: Path, image: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    fails(3, "predict", trained, tmp_path / "text.png", image, "--out", tmp_path / "out", said="text.png: not a JPEG")
    assert (tmp_path / "out/grey.depth.png").exists()


@pytest.mark.parametrize(
    ("code", "words", "said"),
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
def test_data_commands(
    fails: Fails, tmp_path: Path, data: Path, file: Path, code: int, words: list[str], said: str
) -> None:
    known = {"DATA": data, "OUT": tmp_path / "out"}
    fails(code, "data", *(known.get(word, word.replace("FILE", str(file))) for word in words), said=said)


@pytest.mark.parametrize("words", [["--help"], ["recipe", "schema"], ["data", "--help"]])
def test_reader_that_has_gone(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "depthray", *words]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_training_on_a_mistaken_unit_says_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    depth_as(lambda depth: 1000 * depth)(data)
    words = ["train", "demo", "--local", *FILES, FLOAT, "--data", data, "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 3
    assert "millimetres read as metres? declare the right data.encoding" in capsys.readouterr().out
