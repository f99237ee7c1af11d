"""Bad recipes, overrides and run folders through the command line: an exit code and one line on stderr."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bad_input import FILES, ROOMS, Fails
from frames import read_index, write_index

import cluster.train
from depthray.__main__ import main

# Recipes and overrides


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lrr: 1}", "unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ('"a\\nb": 1', "unknown key 'a b'"),
        ("1: 2", "1=1: keys should be strings"),
        ("optim: 3", "optim=3"),
        ("train: {epochs: three}", "train.epochs='three'"),
        ("train: {batch_size: 0}", "train.batch_size=0"),
        ("optim: {lr: .nan}", "optim.lr=nan"),
        ("data: {min_depth: 5, max_depth: 1}", "data.min_depth must be below data.max_depth"),
        ("data: {source: synthetic, root: /x}", "data.root=/x: no such folder; data.source=synthetic needs none"),
        ("loss: {l1: 0}", "every loss weight is 0"),
        ("seed: 1\nseed: 2", "key 'seed' is given twice"),
        ("seed: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("? [1]\n: 2", "not a readable YAML file: unhashable"),
        ("seed: 2020-13-45", "not a readable YAML file: month must be in 1..12"),
        ("seed: " + 300 * "[", "not a readable YAML file"),
        ("seed: [", "not a readable YAML file"),
        ("optim:\n\tlr: 1", "not a readable YAML file: while scanning"),
        ("", "a recipe is a mapping of sections, this file is empty"),
        ("[1, 2]", "a recipe is a mapping of sections, this file is a list"),
        ("epochs: 3", "unknown key 'epochs' (did you mean 'train.epochs'?)"),
        (b"\xff\xfe\x00", "not a readable YAML file: 'utf-8' codec"),
    ],
)
def test_recipe_file(fails: Fails, tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    fails(2, "train", path, "--local", "--out", tmp_path / "out", message=message)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_no_recipe_file(fails: Fails, tmp_path: Path) -> None:
    fails(2, "train", tmp_path, "--local", message=(f"no recipe '{tmp_path}'", "path/to/it.yaml"))
    fails(2, "train", tmp_path / "mine.yaml", "--local", message="mine.yaml does not exist")
    (tmp_path / "mine.yaml").mkdir()
    fails(2, "train", tmp_path / "mine.yaml", "--local", message="mine.yaml is not a file")
    fails(2, "recipe", "show", "deno", message="did you mean 'demo'?")
    fails(2, "train", "--local", message=("no recipe is given; choose from: ", "demo, "))


@pytest.mark.parametrize(
    ("code", "argument", "message"),
    [
        (2, "opitm.lr=1", "unknown key 'opitm' (did you mean 'optim'?)"),
        (2, "optim.lr=fast", "optim.lr='fast'"),
        (2, "optim.lr=-1", "optim.lr=-1"),
        (2, "data.size=32", "data.size=32"),
        (2, "data.size=32,[", "data.size[1]='['"),
        (2, "data.inputs=image,imge", "'imge'"),
        (2, "model.encoder=resnet344", "did you mean 'resnet34'?"),
        (2, "model.weights=imagenet", "no ImageNet weights for encoder 'tiny'"),
        (2, "data.encoding=cm", "no depth encoding data.encoding='cm'"),
        (2, "eval.protocol=nyu", "did you mean 'nyu-s2d'?"),
        (2, "train.accumulate=3", "train.batch_size=8 is the global batch and must divide by"),
        (3, "train.batch_size=100", "20 training frames do not fill one batch of 100"),
        (3, "curriculum.chunks=9", "lower train.batch_size or curriculum.chunks"),
        (3, "data.frames=1", "no frames to validate on"),
        (3, "data.val_fraction=0", "data.val_fraction is 0"),
        (2, "epochs=3", "unknown key 'epochs' (did you mean 'train.epochs'?)"),
        (2, "optim.learning_rate=1", "unknown key 'optim.learning_rate' (did you mean 'optim.lr'?)"),
        (2, "batch=8", "unknown key 'batch' (did you mean 'train.batch_size'?)"),
        (2, "train.lr=1", "unknown key 'train.lr' (did you mean 'optim.lr'?)"),
        (2, "data.batch_siez=1", "unknown key 'data.batch_siez' (did you mean 'train.batch_size'?)"),
        (2, "--epochs", "--epochs (did you mean the override train.epochs=VALUE?); see depthray train --help"),
        (2, "--learning-rate=1", "(did you mean the override optim.lr=VALUE?)"),
        (2, "--restume", "(did you mean '--resume'?)"),
        (2, "--workers=two", "argument --workers: invalid int value: 'two'; see depthray train --help"),
        (2, "--recipe=demo", "(RECIPE is given without a flag)"),
        (2, "--cpus-per-worker=-1", "--cpus-per-worker -1: at least 1 is needed"),
        (2, "--min-workers=0", "--min-workers 0: at least 1 is needed"),
        (2, "data.size=64x96", "data.size='64x96': input should be a valid tuple; write height,width: 64,96"),
        (2, "optim.lr==0.1", "optim.lr='=0.1'"),
        (2, "optim.lr", "'optim.lr' is neither a flag nor an override of the form section.key=value"),
        (2, "train.epochs=3.5", "train.epochs=3.5"),
        (2, "", "an argument is empty, perhaps a variable of the shell that is not set"),
        (2, "nonsense", "'nonsense' is neither a flag nor an override"),
        (2, "--workers=0", "--workers 0"),
        (2, "--workers=2", "--local is one process"),
        (2, "train.epochs=true", "train.epochs=True"),
        (2, "seed=9999999999999999999999", "seed=9999999999999999999999"),
        (2, "data.size=1000000,1000000", "data.size[0]=1000000"),
        (2, "--resume", "--resume: "),
    ],
)
def test_words(fails: Fails, tmp_path: Path, code: int, argument: str, message: str) -> None:
    fails(code, "train", "demo", "--local", *ROOMS, "--out", tmp_path / "out", argument, message=message)
    assert not (tmp_path / "out").exists()


def test_unknown_command(fails: Fails) -> None:
    fails(2, "trian", message="no command 'trian' (did you mean 'train'?)")
    fails(2, "data", "chekc", "x", message="(did you mean 'check'?); see depthray data --help")
    fails(2, "data", message="the following arguments are required")
    fails(2, "tune", "demo", "--sheduler", "asha", message="(did you mean '--scheduler'?)")
    fails(2, "evaluate", message="the following arguments are required: checkpoint")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there(fails: Fails, tmp_path: Path) -> None:
    fails(
        5, "train", "demo", "--local", *ROOMS, "--gpu", "--out", tmp_path / "out", message="--gpu: PyTorch finds no GPU"
    )


# Runs


def test_run_folder_that_cannot_be_made(fails: Fails, file: Path) -> None:
    for out in (file, file / "below"):
        fails(2, "train", "demo", "--local", *ROOMS, "--out", out, message=(str(out), "Not a directory"))


def test_same_command_again_after_a_mistake_in_the_data(fails: Fails, tmp_path: Path, data: Path) -> None:
    arguments = ["train", "demo", "--local", *FILES, "--data", data, "--out", tmp_path / "out"]
    (data / "index.csv").rename(data / "later.csv")
    for _ in range(2):
        fails(3, *arguments, message="index.csv: No such file")


def test_run_name_used_before(fails: Fails, trained: Path) -> None:
    fails(2, "train", "demo", "--local", *ROOMS, "--out", trained, message=("already holds a run", "--resume"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optim.lr=0.1", "optim.lr was 0.002, is 0.1"),
        ("model.decoder=linear", "model.decoder was None, is linear"),
        ("train.batch_size=4", "train.batch_size was 8, is 4"),
        ("data.frames=32", "data.frames was 24, is 32"),
    ],
)
def test_resume_as_another_run(fails: Fails, run: Path, argument: str, message: str) -> None:
    fails(2, "train", "--local", "--out", run, "--resume", argument, message=message)


def test_resume_on_workers_the_batch_cannot_be_dealt_to(
    fails: Fails, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.train, "train_on_ray", lambda *_: pytest.fail("Ray was started"))
    fails(2, "train", "--out", run, "--resume", "--workers", "3", message="must divide by --workers 3")


def test_resume_on_other_data(fails: Fails, tmp_path: Path, data: Path) -> None:
    arguments = ["train", "demo", "--local", *FILES, "--data", data, "--out", tmp_path / "out"]
    assert main([*map(str, arguments)]) == 0
    write_index(data, read_index(data)[1:])
    fails(3, *arguments, "--resume", "train.epochs=2", message=(str(data), "fingerprint differs"))


def test_links_that_lead_to_themselves(fails: Fails, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    fails(3, "train", "demo", "--local", *FILES, "--data", loop, "--out", tmp_path / "out", message="Too many levels")
    fails(2, "train", "demo", "--local", *ROOMS, "--out", loop, message="cannot write the run folder")
