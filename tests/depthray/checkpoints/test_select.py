"""Names of checkpoints, and the one rule by which a run's best is chosen, wherever the run is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from depthray.checkpoints import manifest, select
from depthray.checkpoints.select import CheckpointName
from depthray.runs import layout, listing, locate
from depthray.runs.run import prepare, record
from depthray.training import preflight


@pytest.mark.parametrize(("step", "epoch", "save"), [(0, 0, 1), (120, 3, 1), (120, 3, 2), (10**9, 10**5, 12)])
def test_a_name_is_parsed_to_what_it_was_formatted_from(step: int, epoch: int, save: int) -> None:
    name = CheckpointName(step, epoch, save)
    assert CheckpointName.parse(str(name)) == name


def test_names_have_the_form_that_runs_on_disk_have() -> None:
    assert str(CheckpointName(120, 3)) == "epoch-0003-step-00000120"
    assert str(CheckpointName(120, 3, 2)) == "epoch-0003-step-00000120-2"


@pytest.mark.parametrize("name", ["", ".tmp-1", "epoch-3", "epoch-a-step-1", "epoch-0003-step-00000120-x", "STOP"])
def test_other_names_are_none(name: str) -> None:
    assert CheckpointName.parse(name) is None
    assert select.sort_names([name]) == []


def test_checkpoints_are_sorted_by_step_and_not_by_text() -> None:
    names = ["epoch-0002-step-00000010-10", "epoch-0002-step-00000010-2", "epoch-0002-step-00000010", "epoch-10-step-9"]
    assert select.sort_names(names) == names[::-1]


@pytest.mark.parametrize(
    ("scores", "monitor", "best"),
    [
        ([0.3, 0.1, 0.2], "abs_rel", 1),
        ([0.3, 0.1, 0.2], "delta1", 0),  # higher is better
        ([0.1, 0.2, 0.1], "abs_rel", 2),  # of equals the latest
        ([None, 0.2, None], "abs_rel", 1),
        ([0.4, math.nan, math.inf, -math.inf], "abs_rel", 0),
        ([0.4, math.nan, math.inf, -math.inf], "iou", 0),
        ([None, math.nan], "abs_rel", 1),  # none is scored: the last
        ([], "abs_rel", None),
    ],
)
def test_the_best_is_one_rule(scores: list[float | None], monitor: str, best: int | None) -> None:
    assert select.best(list(enumerate(scores)), monitor) == best


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with four checkpoints."""
    folder = tmp_path_factory.mktemp("four") / "run"
    overrides = ["data.size=32,64", "data.frames=16", "train.batch_size=8", "train.epochs=4", "train.keep_best=4"]
    recipe = preflight.load("demo", [*overrides, "train.precision=fp32"])
    prepare(folder, recipe, resume=False)
    for _ in record(recipe, folder, torch.device("cpu")):
        pass
    return folder


@pytest.mark.parametrize("scores", [[3, 1, 2, 4], [1, 2, 1, 2], [None, 2, None, None], [None] * 4])
def test_here_and_on_a_store_and_in_the_listing_the_same_checkpoint_is_best(
    scores: list[float | None], run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEPTHRAY_CACHE", str(tmp_path / "cache"))
    paths = select.committed(run / layout.CHECKPOINTS)
    for path, score in zip(paths, scores, strict=True):
        (path / manifest.METRICS).write_text(json.dumps({"abs_rel": score}))
    chosen = locate.resolve(run)
    assert chosen == select.best(list(zip(paths, scores, strict=True)), "abs_rel")
    there, metrics = locate.summary(f"file://{run}")
    assert (str(there), metrics) == (
        f"file://{run}/checkpoints/{chosen.name}",
        {"abs_rel": scores[paths.index(chosen)]},
    )
    best = listing.open_run(run).best_checkpoint
    assert best is not None and best.name == chosen.name
