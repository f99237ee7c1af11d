"""How `depthray train` reads its arguments, and what it reports before any worker is started."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from frames import folder_dataset
from paths import ROOT

import cluster.train
from cluster.resources import Workers, resources_per_worker, unused_gpus
from cluster.train import main
from depthray.checkpoints import select
from depthray.cli import train
from depthray.config import recipe as recipes
from depthray.config.overrides import read_yaml
from depthray.config.sections import Recipe
from depthray.errors import ResourceError, UsageError
from depthray.runs import new_run
from depthray.runs.locate import summary
from depthray.runs.run import prepare, record
from depthray.training import preflight
from depthray.training.dry_run import check_model
from depthray.training.state import begin

CPU = torch.device("cpu")
SMALL = ["data.size=32,64", "data.frames=24", "train.batch_size=8", "train.epochs=1", "train.precision=fp32"]


def small(*arguments: str) -> Recipe:
    return preflight.load("demo", [*SMALL, *arguments])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Recipe]:
    """The recipes that would have been given to Ray, instead of Ray; the working directory is a fresh one."""
    recipes: list[Recipe] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster.train, "train_on_ray", lambda made, run, args: recipes.append(made))
    monkeypatch.setattr(train, "print_result", lambda run, finished: None)
    return recipes


def test_a_file_of_weights_is_named_from_the_root(started: list[Recipe], tmp_path: Path) -> None:
    weights = begin(small(), CPU).model.encoder.state_dict()
    torch.save(weights, tmp_path / "tiny.pth")
    (tmp_path / "tiny").touch()  # an override that happens to be a file stays an override
    main(["demo", *SMALL, "model.weights=tiny.pth", "--out", "run"])
    (made,) = started
    assert made.model.options == {"encoder": "tiny"}
    assert made.model.weights == os.path.realpath(tmp_path / "tiny.pth")
    assert preflight.parse(read_yaml(tmp_path / "run" / "recipe.yaml"), where="run") == made


def test_the_form_of_the_data_is_recognised(tmp_path: Path) -> None:
    data = folder_dataset(tmp_path / "data", size=(16, 24))

    def source(*arguments: str) -> str:
        return train.load_recipe(train.build_parser().parse_intermixed_args(arguments)).data.source

    for recipe in ("unet-lite", "demo"):  # made for shards and for rooms that are drawn
        assert source(recipe, "--data", str(data)) == source(recipe, f"data.root={data}") == "folder"
    assert source("unet-lite", "--data", str(data), "data.source=shards") == "shards", "somebody's choice"
    assert source("unet-lite", "--data", str(tmp_path / "on-the-cluster")) == "shards"
    assert source("unet-lite", "--data", "s3://bucket/packed") == "shards"


def test_few_frames_get_values_that_fit_and_the_run_says_so(
    started: list[Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_dataset(tmp_path / "data", size=(16, 24))
    arguments = ["demo", "--data", str(data), "data.size=32,64", "data.val_fraction=0.34", "--out", "run"]
    main(arguments)
    assert "adjusted to 8 training frames: train.batch_size=4 (recipe: 16)" in capsys.readouterr().out
    main([*arguments, "--resume"])
    first, second = started
    assert first == second == preflight.parse(read_yaml(tmp_path / "run" / "recipe.yaml"), where="run")
    (tmp_path / "own.yaml").write_text("train: {batch_size: 6}\n")
    main(["own.yaml", *arguments[1:-1], "own"])
    assert started[-1].train.batch_size == 6, "a recipe of one's own is as it is written"


def test_an_error_before_the_first_step_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def launch(*_: object) -> bool:
        assert (tmp_path / "run" / "recipe.yaml").exists()
        raise ResourceError("too few CPUs")

    monkeypatch.setattr(cluster.train, "train_on_ray", launch)
    with pytest.raises(ResourceError):
        main(["demo", *SMALL, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpus_are_reported_before_ray_starts(started: list[Recipe]) -> None:
    with pytest.raises(ResourceError, match="--gpu needs 1 GPU, one for each worker, and PyTorch finds 0 here"):
        main(["demo", *SMALL, "--gpu", "--out", "run"])
    assert not started and not Path("run").exists()


def test_more_workers_than_cpus_are_a_note() -> None:
    text = "note: 10 workers share 2 CPUs, and so are slower than 2 would be"
    assert cluster.train.crowding(10, cpus=2, address=None) == text
    assert not cluster.train.crowding(2, cpus=2, address=None) and not cluster.train.crowding(9, cpus=2, address="auto")


def test_gpus_that_nobody_asked_for_are_a_note() -> None:
    note = unused_gpus({"CPU": 64.0, "GPU": 8.0}, requested=0, flag="--gpu")
    assert note == "note: the 8 GPUs of the cluster will be idle and training runs on CPUs; give --gpu"
    assert not unused_gpus({"CPU": 64.0, "GPU": 8.0}, requested=1, flag="--gpu")
    assert not unused_gpus({"CPU": 64.0}, requested=0, flag="--gpu")


def test_the_note_is_printed_once_the_cluster_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    cluster.train._note_unused_gpus(Workers(1))
    assert capsys.readouterr().out == (
        "note: the 1 GPU of the cluster will be idle and training runs on CPUs; give --gpu\n"
    )
    cluster.train._note_unused_gpus(Workers(1, gpus=1.0))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("gpus", "each", "count", "fits"), [(2, 0.4, 4, True), (2, 0.4, 5, False), (3, 2, 2, False)])
def test_workers_are_refused_where_ray_would_place_them_never(gpus: int, each: float, count: int, fits: bool) -> None:
    there = {"CPU": 64.0, "GPU": float(gpus)}
    with nullcontext() if fits else pytest.raises(ResourceError, match="were requested"):
        resources_per_worker(there, Workers(count, gpus=each))


def test_from_is_short_for_the_weights_of_a_run(started: list[Recipe], tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    arguments = train.build_parser().parse_intermixed_args(["demo", *SMALL, "--from", "first", "--out", "second"])
    assert train.load_recipe(arguments).model.weights == os.path.realpath("first")


def test_a_run_of_an_earlier_version_resumes_with_its_recipe_named_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    before = ROOT / "tests" / "made_before" / "v0.1.0" / "runs" / "stopped" / "recipe.yaml"
    (run / "recipe.yaml").write_bytes(before.read_bytes())
    tree = read_yaml(before)
    for section, key in (("optim", "momentum"), ("augment", "noise"), ("train", "patience")):
        del tree[section][key]  # a recipe written by hand does not name every key
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree))
    arguments = [str(tmp_path / "own.yaml"), "--out", str(run), "--resume"]
    assert preflight.load(arguments[0]).optim.onecycle == "torch"
    recipe = train.load_recipe(train.build_parser().parse_intermixed_args(arguments))
    assert (recipe.optim.onecycle, recipe.optim.cycle_momentum, recipe.train.patience_ends) == ("legacy", False, "run")
    prepare(run, recipe, resume=True)
    prepare(run, train.load_recipe(train.build_parser().parse_intermixed_args(arguments)), resume=True)
    changed = train.load_recipe(train.build_parser().parse_intermixed_args([*arguments, "optim.onecycle=torch"]))
    with pytest.raises(UsageError, match=r"optim\.onecycle was legacy, is torch"):
        prepare(run, changed, resume=True)


def test_data_given_as_an_override_are_named_from_the_root(started: list[Recipe], tmp_path: Path) -> None:
    from frames import folder_dataset

    folder_dataset(tmp_path / "frames")
    arguments = ["data.source=folder", "data.val_fraction=0.34", "train.batch_size=4"]
    for root in (["data.root=frames"], ["--data", "frames"]):
        main(["demo", *SMALL, *arguments, *root, "--out", root[0].strip("-")[:6]])
    assert [made.data.root for made in started] == 2 * [os.path.realpath(tmp_path / "frames")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.weights=other.npy"], "not a file of weights only"),
        (["model.weights=none.pth"], "model.weights=none.pth: no such file"),
        (["model={name: masknet}", "data.targets=mask", "eval.monitor=iou"], "compares image and background"),
        (["data.targets=depth,mask"], "model.name=unet predicts depth, and data.targets wants mask"),
        (["eval.protocol=legacy-003"], "eval.monitor=abs_rel is not scored by eval.protocol=legacy-003"),
    ],
)
def test_a_mistake_in_the_model_is_reported_before_ray_and_can_be_fixed(
    started: list[Recipe], tmp_path: Path, arguments: list[str], message: str
) -> None:
    np.save(tmp_path / "other.npy", np.zeros(3))
    with pytest.raises(UsageError, match=message):
        main(["demo", *SMALL, *arguments, "--out", "run"])
    assert not started and not (tmp_path / "run").exists()
    main(["demo", *SMALL, "--out", "run"])
    assert len(started) == 1


def test_a_run_of_other_scores_is_reported_by_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval.protocol=legacy-003", "eval.monitor=mse", "--local", "--out", str(tmp_path / "run")]
    assert main(["demo", *SMALL, *arguments]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("checkpoint"))
    assert "(ssim " in line and ", mse " in line and "not validated" not in line and "lr" not in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.targets=depth,mask"], "model.name=unet predicts depth, and data.targets wants mask"),
        (["data.targets=mask", "eval.monitor=iou"], "model.name=unet predicts depth, and data.targets wants mask"),
        (
            ["model={name: masknet}", "data.inputs=background,image"],
            "masknet predicts mask, and data.targets wants depth",
        ),
        (["model={name: masknet}"], "compares image and background"),
        (["model.weights=no-such-file.pth"], "no such file"),
        (["model.weights=imagenet"], "no ImageNet weights for encoder 'tiny'"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_without_building_it(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_model(small(*arguments), start=True)


def test_a_model_is_checked_without_memory_and_its_file_is_read_unless_it_resumes(tmp_path: Path) -> None:
    weights = begin(small(), CPU).model.encoder.state_dict()
    torch.save(weights, tmp_path / "tiny.pth")
    check_model(small(f"model.weights={tmp_path}/tiny.pth"), start=True)
    weights.popitem()
    torch.save(weights, tmp_path / "tiny.pth")
    with pytest.raises(UsageError, match="lacks weight"):
        check_model(small(f"model.weights={tmp_path}/tiny.pth"), start=True)
    check_model(small(f"model.weights={tmp_path}/tiny.pth"), start=False)
    state = torch.get_rng_state()
    check_model(small(), start=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_target_the_network_lacks_is_reported_before_the_first_step(tmp_path: Path) -> None:
    made = small("data.targets=depth,mask")
    prepare(tmp_path / "run", made, resume=False)
    with pytest.raises(UsageError, match=r"predicts depth, and data\.targets wants mask"):
        next(record(made, tmp_path / "run", CPU))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_scores_of_a_protocols_own_are_drawn_and_rank_the_run(curves: None, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = small("train.epochs=1", "eval.protocol=legacy-003", "eval.monitor=mse")
    prepare(tmp_path / "run", made, resume=False)
    (epoch,) = record(made, tmp_path / "run", CPU)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    drawn = {tag for tag in events.Tags()["scalars"] if tag.startswith("val/")}
    assert drawn == {"val/ssim", "val/mse"}
    assert events.Scalars("val/mse")[0].value == pytest.approx(epoch.metrics["mse"])
    (best,) = select.committed(tmp_path / "run" / "checkpoints")
    path, metrics = summary(tmp_path / "run")
    assert path == best and metrics == pytest.approx(epoch.metrics)


def test_the_recipe_of_a_run_to_resume_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path / "run", small(), resume=False)
    saved: list[object] = []
    read = Mock(wraps=recipes.read)
    monkeypatch.setattr(recipes, "read", read)
    monkeypatch.setattr(new_run, "prepare_checked", lambda run, recipe, **options: saved.append(options["saved"]))
    arguments = train.build_parser().parse_intermixed_args(
        ["demo", *SMALL, "--out", str(tmp_path / "run"), "--resume", "--local"]
    )
    train.prepare_run(tmp_path / "run", train.load_recipe(arguments), arguments)
    assert [call.args[0] for call in read.call_args_list].count(str(tmp_path / "run" / "recipe.yaml")) == 1
    assert saved == [small()]
