"""Training from the labels of a teacher: sets with and without measured depth, scores against both, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frames import folder_dataset
from labelled import WRONG, label

from depthray.batch import collate, to_device
from depthray.checkpoints import load, select
from depthray.config.sections import Augment, Data, Recipe
from depthray.data import packing
from depthray.data.augmentation.augment import augment
from depthray.data.encodings import judged_depth
from depthray.data.mixing.joined_source import JoinedSource
from depthray.data.sources import open_source
from depthray.errors import DepthrayError
from depthray.evaluation.evaluate import evaluate_checkpoint, evaluate_frames
from depthray.runs.new_run import prepare_checked
from depthray.runs.run import record
from depthray.runtimes.open import open_model
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.label_check import check_labels

CPU = torch.device("cpu")
SMALL = [
    *("data.size=24,32", "train.batch_size=6", "train.epochs=1", "train.precision=fp32", "eval.zero_shot=false"),
    *("train.log_seconds=100", "eval.batch_size=3", "data.workers=0", "augment.crop=0.8", "curriculum.chunks=1"),
]
TAUGHT = "loss.teacher.log_l1=1"
RANKED = "eval.monitor=teacher_abs_rel"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A set with measured depth, and sets of other frames with labels: with measured depth, and without."""
    root = tmp_path_factory.mktemp("taught")
    mine = folder_dataset(root / "mine", scenes=4, per_scene=3, size=(24, 32))
    other = folder_dataset(root / "other", scenes=4, per_scene=4, size=(28, 40))
    packing.pack(open_source(Data(source="folder", root=str(mine))), root / "packed", provenance={"name": "mine"})
    return {
        "mine": str(root / "packed"),
        "both": label(mine, root / "both", sigma=0.1),
        "labels": label(other, root / "labels", measured=False, sigma=0.02),
        "relative": label(mine, root / "relative", kind="relative"),
        "affine": label(mine, root / "affine", kind="affine-disparity"),
    }


def small(*overrides: str) -> Recipe:
    return preflight.load_with_data("demo", [*SMALL, *overrides])


def of_sets(roots: dict[str, str], *names: str) -> list[str]:
    return [f"data.sets.{number}.root={roots[name]}" for number, name in enumerate(names)]


def train(made: Recipe, run: Path) -> Path:
    """The checkpoint after one epoch."""
    for _ in record(prepare_checked(run, made, resume=False), run, CPU):
        pass
    return select.committed(run / "checkpoints")[-1]


def test_labels_follow_every_change_of_the_picture(roots: dict[str, str]) -> None:
    sample = open_source(Data(root=roots["both"])).read(1)
    teacher = sample["teacher"]
    np.testing.assert_allclose(teacher[sample["depth"] > 0], WRONG * sample["depth"][sample["depth"] > 0], rtol=1e-3)
    changed = augment(sample, Augment(crop=0.6, hflip=1, zoom_depth=True, rotate=5), seed=1, epoch=0, size=(20, 26))
    measured = changed["depth"] > 0
    assert measured.sum() > 200 and not np.array_equal(changed["depth"], sample["depth"][:20, :26])
    np.testing.assert_allclose(changed["teacher"][measured], WRONG * changed["depth"][measured], rtol=1e-3)
    np.testing.assert_allclose(changed["sigma"][measured], 0.1 * changed["teacher"][measured], rtol=3e-3)
    assert changed["depth"].max() < sample["depth"].max() * 0.8  # zoomed, and so are the labels


def test_labels_count_within_the_limits_of_depth(roots: dict[str, str]) -> None:
    batch = collate([open_source(Data(root=roots["labels"])).read(0)])
    moved = to_device(batch, CPU, min_depth=1.0, max_depth=2.5)
    assert not moved["valid"].any() and moved["teacher"].dtype == moved["sigma"].dtype == torch.float32
    assert torch.equal(moved["teacher_valid"], (moved["teacher"] > 1) & (moved["teacher"] < 2.5))
    assert 0 < moved["teacher_valid"].float().mean() < 1


def test_frames_of_a_set_without_labels_have_none_beside_those_of_one_with(roots: dict[str, str]) -> None:
    source = open_source(Data(sets=[{"root": roots["mine"]}, {"root": roots["labels"]}]))
    assert isinstance(source, JoinedSource) and {"depth", "teacher", "sigma"} <= source.keys
    mine, labelled = source.read(0), source.read(12)
    assert mine.keys() == labelled.keys() and mine["depth"].any() and not mine["teacher"].any()
    assert not labelled["depth"].any() and labelled["teacher"].all() and labelled["sigma"].all()
    stored = source.read_stored(12)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(stored["teacher"], labelled["teacher"])
    assert np.array_equal(judged_depth(labelled), labelled["teacher"]) and judged_depth(mine) is mine["depth"]


@pytest.mark.parametrize("on_device", [False, True])
def test_steps_of_mixed_sets_are_the_same_wherever_samples_are_changed(roots: dict[str, str], on_device: bool) -> None:
    names = ("mine", "labels")
    made = small(*of_sets(roots, *names), TAUGHT, f"augment.device={'device' if on_device else 'cpu'}")
    for step in Frames.open(made).train_epoch(0):
        for cpu in step:
            batch = to_device(cpu, CPU, min_depth=1e-3, max_depth=10)
            of_labels = batch["set"] == 1
            assert batch["teacher"].shape == batch["depth"].shape == (6, 1, 24, 32)
            assert torch.equal(batch["teacher_valid"].flatten(1).any(dim=1), of_labels)
            assert torch.equal(batch["valid"].flatten(1).any(dim=1), ~of_labels)


def test_a_student_learns_from_labels_beside_truth_and_is_scored_against_both(
    roots: dict[str, str], tmp_path: Path
) -> None:
    made = small(*of_sets(roots, "mine", "labels"), TAUGHT, "data.sets.1.weight=1.5", "data.sets.1.overall=false")
    path = train(made, tmp_path / "run")
    scores = load.load(path).metrics
    assert scores["abs_rel"] == scores["packed/abs_rel"] and "labels/abs_rel" not in scores
    assert scores["labels/teacher_abs_rel"] > 0 and "teacher_abs_rel" not in scores
    assert not any(name.startswith("packed/teacher") for name in scores)
    report = evaluate_checkpoint(path, made, side="val", device=CPU)
    report.write(tmp_path / "scores")
    lines = (tmp_path / "scores" / "evaluation.md").read_text().splitlines()
    of_labels = next(line for line in lines if line.startswith("| labels "))
    assert f"{scores['labels/teacher_abs_rel']:.4f}" in of_labels and "| -" in of_labels
    assert all(math.isfinite(value) for value in report.scores.values())


def test_labels_alone_train_and_rank_a_student(roots: dict[str, str], tmp_path: Path) -> None:
    made = small(f"data.root={roots['labels']}", "loss.l1=0", TAUGHT, RANKED)
    scores = load.load(train(made, tmp_path / "run")).metrics
    assert scores.keys() >= {"teacher_abs_rel", "teacher_delta1"} and "abs_rel" not in scores
    assert 0 < scores["teacher_abs_rel"] < math.inf


def test_a_score_against_the_teacher_is_that_against_its_depth(roots: dict[str, str], tmp_path: Path) -> None:
    made = small(f"data.root={roots['both']}", TAUGHT)
    path = train(made, tmp_path / "run")
    report = evaluate_checkpoint(path, made, side="val", device=CPU)
    plain = {row.id: row for row in report.evaluation.rows}

    class Swapped:
        """The frames with their labels in the place of the truth."""

        def __init__(self) -> None:
            self._source = open_source(made.data)
            self.frames, self.fingerprint = self._source.frames, "swapped"
            self.keys = self._source.keys - {"teacher", "sigma"}

        def read(self, index: int) -> Any:
            sample: dict[str, Any] = dict(self._source.read(index))
            sample["depth"] = sample.pop("teacher")
            return sample

        def faults(self, index: int) -> list[str]:
            return []

    opened = open_model(path, device=CPU)
    swapped = evaluate_frames(opened, path, made, Swapped(), side="val", device=CPU)
    for row in swapped.rows:
        assert plain[row.id].score("teacher_abs_rel") == row.score("abs_rel") != plain[row.id].score("abs_rel")
        assert plain[row.id].score("teacher_delta1") == row.score("delta1")


REFUSED = [
    (("mine",), (TAUGHT,), r"loss\.teacher\.log_l1: no frame of .*packed has the depth of a teacher; label them with"),
    (("mine",), (RANKED,), r"eval\.monitor=teacher_abs_rel: no validation frame of .* has the depth of a teacher"),
    (("labels",), (RANKED,), r"labels of a teacher and no measured depth, and loss\.teacher is not given"),
    (("labels",), (TAUGHT,), r"eval\.monitor=abs_rel is a score against measured depth.*eval\.monitor=teacher_abs_rel"),
    (
        ("mine", "labels"),
        ("data.sets.0.loss.teacher.l1=1", "data.sets.1.loss.teacher.l1=1"),
        r"packed: its loss has terms of loss\.teacher alone, and its frames have no depth of a teacher",
    ),
    (
        ("relative",),
        (TAUGHT,),
        r"relative: loss\.teacher\.log_l1 does not fit its labels, which are shares .* by 'teacher'; give "
        r"loss\.teacher\.ssi and loss\.teacher\.ssi_gradient alone",
    ),
    (("affine",), ("loss.teacher.silog=1", "loss.silog_lambda=1"), r"affine: loss\.teacher\.silog does not fit"),
    (("affine",), ("loss.teacher.ssi=1", "loss.ssi_space=depth"), r"loss\.ssi_space=depth .* give loss\.ssi_space=dis"),
    (("mine", "affine"), ("data.sets.1.loss.l1=1", f"data.sets.1.{TAUGHT}"), r"affine: loss\.teacher\.log_l1 does"),
]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("affine", ["loss.teacher.ssi=1", "loss.teacher.ssi_gradient=1"]),
        ("relative", ["loss.teacher.ssi=1", "loss.teacher.silog=1", "loss.silog_lambda=1"]),
        ("relative", [TAUGHT, "loss.target=relative", "eval.protocol=legacy-003", "eval.monitor=mse"]),
    ],
)
def test_labels_without_metres_train_what_does_not_see_their_scale(
    roots: dict[str, str], name: str, overrides: list[str]
) -> None:
    extra = ["model.max_depth=1", "loss.depth_range=1"] if "loss.target=relative" in overrides else []
    check_labels(Frames.open(small(f"data.root={roots[name]}", *overrides, *extra)))


@pytest.mark.parametrize(("names", "overrides", "message"), REFUSED)
def test_what_cannot_be_learned_or_ranked_is_said_before_there_is_a_run(
    roots: dict[str, str], tmp_path: Path, names: tuple[str, ...], overrides: tuple[str, ...], message: str
) -> None:
    data = of_sets(roots, *names) if len(names) > 1 else [f"data.root={roots[names[0]]}"]
    with pytest.raises(DepthrayError, match=message):
        prepare_checked(tmp_path / "run", small(*data, *overrides), resume=False)
    assert not (tmp_path / "run").exists()
