"""Runs on several data sets: shares, limits, losses and scores of each; weight 0, resuming and ranks change no bit."""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from frames import folder_dataset

from depthray import distributed, losses
from depthray.batch import Batch, to_device
from depthray.checkpoints import load, select
from depthray.cli.evaluate import recipe_of
from depthray.config.sections import Recipe
from depthray.data import packing
from depthray.data.mixing import data_sets
from depthray.data.sources import open_source
from depthray.errors import DataError, UsageError
from depthray.evaluation import protocols
from depthray.evaluation.evaluate import evaluate_checkpoint
from depthray.runs import console, progress
from depthray.runs.layout import STOP
from depthray.runs.run import prepare, record
from depthray.training import dry_run, preflight
from depthray.training.frames import Frames

CPU = torch.device("cpu")
SMALL = [
    *("data.size=24,32", "data.source=folder", "train.batch_size=6", "train.epochs=2", "train.precision=fp32"),
    *("train.log_seconds=100", "eval.batch_size=3", "data.workers=0", "augment.crop=0.8"),
]
AFFINE = ["data.sets.1.loss.ssi=1", "data.sets.1.protocol=affine-disparity", "data.sets.1.max_depth=3.5"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Sets of frames of different size, camera and range."""
    root = tmp_path_factory.mktemp("sets")
    near = folder_dataset(root / "near", scenes=4, per_scene=4, size=(24, 32))
    return [str(near), str(folder_dataset(root / "far", scenes=4, per_scene=3, size=(40, 28)))]


def small(*overrides: str) -> Recipe:
    return preflight.load_with_data("demo", [*SMALL, *overrides])


def of_both(roots: list[str], *overrides: str) -> Recipe:
    return small(f"data.sets.0.root={roots[0]}", f"data.sets.1.root={roots[1]}", *overrides)


def train(made: Recipe, run: Path, *, stop_at: int = 0) -> load.CheckpointContents:
    """The last checkpoint of a run, trained or resumed; with `stop_at` it is asked to stop at that step."""
    prepare(run, made, resume=(run / "recipe.yaml").exists())

    def show(line: dict[str, Any]) -> None:
        if line["kind"] == "interval" and line["step"] == stop_at:
            (run / STOP).touch()

    for _ in record(made, run, CPU, show=show):
        pass
    return load.load(select.committed(run / "checkpoints")[-1], state=True)


def check_equal(one: load.CheckpointContents, two: load.CheckpointContents) -> None:
    assert one.step == two.step and one.weights.keys() == two.weights.keys()
    assert [key for key in one.weights if not torch.equal(one.weights[key], two.weights[key])] == []
    scores = [{key: value for key, value in each.metrics.items() if key != "seconds"} for each in (one, two)]
    assert scores[0] == scores[1]


def test_a_set_of_weight_0_changes_no_bit(roots: list[str], tmp_path: Path) -> None:
    alone = train(small(f"data.root={roots[0]}"), tmp_path / "alone")
    without = train(of_both(roots, *AFFINE, "data.sets.1.weight=0"), tmp_path / "without")
    check_equal(alone, without)
    assert alone.fingerprint == without.fingerprint
    with_both = train(of_both(roots, *AFFINE, "data.sets.1.weight=0.5"), tmp_path / "with")
    assert with_both.metrics["near/abs_rel"] != alone.metrics["abs_rel"]


def test_a_stopped_run_resumes_to_the_same_weights(roots: list[str], tmp_path: Path) -> None:
    made = of_both(
        *(
            roots,
            *AFFINE,
            "data.sets.1.weight=0.4,0.9",  # of the first epoch, and of the second
            "optim.average=swa",
            "optim.swa_start=0.4",
            "train.log_seconds=1e-9",
        )
    )
    straight = train(made, tmp_path / "straight")
    train(made, tmp_path / "stopped", stop_at=1)
    check_equal(train(made, tmp_path / "stopped"), straight)


def test_a_run_resumes_where_its_sets_were_moved_and_not_with_other_weights(roots: list[str], tmp_path: Path) -> None:
    made = of_both(roots)
    train(made, tmp_path / "run", stop_at=1)
    moved = [folder_dataset(tmp_path / name, scenes=2, per_scene=1, size=(24, 32)) for name in ("near", "there")]
    prepare(tmp_path / "run", of_both(roots, f"data.sets.0.root={moved[0]}"), resume=True)
    for override, key in (
        ("data.sets.0.weight=2", r"data\.sets\.0\.weight was 1\.0, is 2\.0"),
        (f"data.sets.0.root={moved[1]}", r"data\.sets\.0\.name was near, is there"),
    ):
        with pytest.raises(UsageError, match=key):
            prepare(tmp_path / "run", of_both(roots, override), resume=True)


def steps_of(frames: Frames, epoch: int) -> list[Batch]:
    return [batch for step in frames.train_epoch(epoch) for batch in step]


def val_groups(frames: Frames) -> list[list[int]]:
    return [indices for indices, _ in frames.val_batches()]


@pytest.fixture
def ranked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Frames as a rank of a world opens them."""

    def opened(made: Recipe, rank: int, world_size: int) -> Frames:
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "world_size", lambda: world_size)
        return Frames.open(made)

    return opened


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_ranks_of_any_number_have_the_same_batches(roots: list[str], ranked: Any, world_size: int) -> None:
    made = of_both(roots, "data.sets.1.weight=0.3")
    complete = ranked(made, 0, 1)
    ranks = [ranked(made, rank, world_size) for rank in range(world_size)]
    for epoch in (0, 3):
        parts = zip(*(steps_of(each, epoch) for each in ranks), strict=True)
        for whole, each in zip(steps_of(complete, epoch), parts, strict=True):
            for key in ("image", "depth", "set", "limits"):
                joined = torch.cat([part[key] for part in each])
                assert torch.equal(whole[key], joined)
    batches = [groups for rank in range(world_size) for groups in val_groups(ranked(made, rank, world_size))]
    assert sorted(batches) == sorted(val_groups(ranked(made, 0, 1)))
    assert sorted(index for each in batches for index in each) == complete.split.val


def test_loader_processes_change_no_sample(roots: list[str]) -> None:
    alone, parallel = (Frames.open(of_both(roots, f"data.workers={workers}")) for workers in (0, 1))
    for one, two in zip(steps_of(alone, 1), steps_of(parallel, 1), strict=True):
        assert one["id"] == two["id"] and torch.equal(one["depth"], two["depth"])


def test_depth_counts_within_the_limits_of_its_set(roots: list[str], tmp_path: Path) -> None:
    packed = [str(tmp_path / Path(root).name) for root in roots]
    for root, out in zip(roots, packed, strict=True):  # read as stored, and made metres on the device
        packing.pack(open_source(small(f"data.root={root}").data), Path(out), provenance={})
    limits = ["data.sets.0.min_depth=1.2", "data.sets.1.max_depth=2.5", "augment.crop=0.5"]
    seen: set[int] = set()
    both = (Frames.open(of_both(each, *limits)) for each in (roots, packed))
    for one, two in zip(*(steps_of(frames, 0) for frames in both), strict=True):
        assert "depth_scale" in two and "depth_scale" not in one and one["id"] == two["id"]
        numbers = one["set"].tolist()
        one, two = (to_device(each, CPU, min_depth=0.001, max_depth=10) for each in (one, two))
        assert torch.allclose(one["depth"], two["depth"]) and torch.equal(one["valid"], two["valid"])
        seen.update(numbers)
        for number, depth, valid, name in zip(numbers, one["depth"], one["valid"], one["id"], strict=True):
            low, high = ((1.2, 10), (1e-3, 2.5))[number]
            assert name.startswith(("near/", "far/")[number])
            assert torch.equal(valid, (depth > low) & (depth < high))
        assert one["valid"].any()
    assert seen == {0, 1}


def test_images_have_the_loss_of_their_set(roots: list[str]) -> None:
    made = of_both(roots, "data.sets.1.loss.ssi=1", "data.sets.1.protocol=affine-disparity")
    sections = data_sets.losses_of(made)
    batch = to_device(steps_of(Frames.open(made), 0)[0], CPU, min_depth=1e-3, max_depth=10)
    depth = torch.rand_like(batch["depth"]).add(1).requires_grad_()
    value = losses.prepare_sets(sections)({"depth": depth}, batch)
    (gradient,) = torch.autograd.grad(value.sum(), depth)
    for number, section in enumerate(sections):
        own = losses.prepare(section)({"depth": depth}, batch)
        (wanted,) = torch.autograd.grad(own.sum(), depth)
        chosen = batch["set"] == number
        assert chosen.any() and torch.equal(value[chosen], own[chosen])
        assert torch.equal(gradient[chosen], wanted[chosen])
    dry_run.check_first_step(made, start=False)


def test_scores_are_of_each_set_by_its_protocol_and_overall(roots: list[str], tmp_path: Path) -> None:
    made = of_both(roots, *AFFINE, "train.epochs=1")
    metrics = train(made, tmp_path / "run").metrics
    shown = [console.line(each) for each in progress.read(tmp_path / "run") if each["kind"] == "epoch"]
    assert f"(abs_rel of near {metrics['near/abs_rel']:.4f}, far {metrics['far/abs_rel']:.4f})" in shown[0]
    checkpoint = select.committed(tmp_path / "run" / "checkpoints")[-1]
    evaluation = evaluate_checkpoint(checkpoint, made, side="val", device=CPU).evaluation
    for own, (name, each) in zip(data_sets.recipes_of(made), evaluation.sets.items(), strict=True):
        alone = evaluate_checkpoint(checkpoint, own, side="val", device=CPU)
        assert each.scores() == pytest.approx(alone.scores, rel=1e-5)
        assert {key: metrics[f"{name}/{key}"] for key in alone.scores} == pytest.approx(alone.scores, rel=1e-5)
    counts = [len(each.rows) for each in evaluation.sets.values()]
    mean = sum(metrics[f"{name}/abs_rel"] * count for name, count in zip(("near", "far"), counts, strict=True))
    assert math.isclose(metrics["abs_rel"], mean / sum(counts))
    assert evaluation.protocol.name == "plain+affine-disparity"
    evaluation.write(tmp_path / "report")
    table = (tmp_path / "report" / "evaluation.md").read_text()
    assert "## By data set" in table and "| far " in table and "affine-disparity" in table
    summary = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert [each["name"] for each in summary["sets"]] == ["near", "far"]


def test_a_set_that_does_not_count_is_scored_beside(roots: list[str], tmp_path: Path) -> None:
    made = of_both(roots, "data.sets.1.overall=false", "train.epochs=1")
    metrics = train(made, tmp_path / "run").metrics
    assert metrics["abs_rel"] == metrics["near/abs_rel"] != metrics["far/abs_rel"]
    checkpoint = select.committed(tmp_path / "run" / "checkpoints")[-1]
    report = evaluate_checkpoint(checkpoint, made, side="val", device=CPU).evaluation
    report.write(tmp_path / "report")
    chosen = argparse.Namespace(overrides=[], data=roots[1], source=None, trust=False)
    elsewhere = recipe_of(checkpoint, chosen)
    assert (elsewhere.data.sets, elsewhere.data.root) == ((), roots[1])
    with (tmp_path / "report" / "evaluation.csv").open(newline="") as file:
        assert {row["source"] for row in csv.DictReader(file)} == {"near", "far"}
    assert {row.source for row in report.rows} == {"near"}


def test_a_protocol_of_sets_says_what_each_is_scored_by(roots: list[str]) -> None:
    same, mixed = (protocols.of(of_both(roots, *each)) for each in ([], AFFINE))
    assert same.name == "plain" and same.of_set("far").name == "plain"
    assert mixed.of_set("far").name == "affine-disparity" and "far: " in mixed.about and "near: " in mixed.about


def test_sets_without_enough_frames_are_refused(roots: list[str], tmp_path: Path) -> None:
    one_scene = folder_dataset(tmp_path / "one", scenes=1, per_scene=3, size=(24, 32))
    with pytest.raises(DataError, match=r"do not fill one batch of 6 \(an epoch has 3 of 3 frames of one"):
        Frames.open(small(f"data.sets.0.root={one_scene}", f"data.sets.1.root={roots[0]}", "data.sets.1.weight=0.5"))
    with pytest.raises(DataError, match=r"none of the data sets that count in the overall scores \(one\)"):
        Frames.open(of_both([str(one_scene), roots[1]], "data.sets.1.overall=false"))
    frames = Frames.open(of_both([str(one_scene), roots[1]]))  # a set without frames to validate on only trains
    assert frames.describe_split().endswith("an epoch has 3 of 3 frames of one, 3 of 9 frames of far")
