"""A data set's own map of where there is a depth to measure: read, packed, moved with the image, trained on, scored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from depthray import losses
from depthray.__main__ import main
from depthray.batch import collate, to_device
from depthray.config.sections import Data, Loss
from depthray.data import split
from depthray.data.augmentation.geometry import View
from depthray.data.augmentation.warp import show
from depthray.data.loader import eval_batches
from depthray.data.mixing.joined_source import JoinedSource, Member
from depthray.data.source import MEASURABLE, NO, YES
from depthray.data.sources import open_source
from depthray.errors import DataError
from depthray.evaluation.uncertainty import valid_mask_scores

SIZE = (24, 32)
CPU = torch.device("cpu")


def write_frames(root: Path, *, with_map: bool = True) -> Data:
    """Two scenes: sky in the upper third, that the depth of some frame was measured in; gaps on the right."""
    root.mkdir(parents=True)
    lines = ["rgb,depth,scene" + ",valid" * with_map]
    for number in range(4):
        depth = np.full(SIZE, 2000 + 500 * number, np.uint16)
        depth[: SIZE[0] // 3, ::2] = 0  # elsewhere in the sky something was measured, which is not right
        depth[:, -8:] = 0
        sky = np.full(SIZE, 255, np.uint8)
        sky[: SIZE[0] // 3] = 0
        arrays: dict[str, Any] = {"rgb": np.full((*SIZE, 3), 60 * number, np.uint8), "depth": depth, "valid": sky}
        for name, array in arrays.items():
            assert cv2.imwrite(str(root / f"{name}{number}.png"), array)
        lines.append(f"rgb{number}.png,depth{number}.png,s{number // 2}" + f",valid{number}.png" * with_map)
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    return Data(source="folder", root=str(root), size=SIZE, val_fraction=0.5)


@pytest.fixture
def section(tmp_path: Path) -> Data:
    return write_frames(tmp_path / "frames")


def check(sample: Any, number: int) -> None:
    upper = SIZE[0] // 3
    assert sample[MEASURABLE].dtype == np.uint8
    assert (sample[MEASURABLE][:upper] == NO).all() and (sample[MEASURABLE][upper:] == YES).all()
    assert not sample["depth"][:upper].any()  # whatever the sensor said there
    assert (sample["depth"][upper:, :-8] == np.float32(2 + 0.5 * number)).all() and not sample["depth"][:, -8:].any()


def test_a_folder_has_it_in_a_column_and_shards_keep_it(section: Data, tmp_path: Path) -> None:
    source = open_source(section)
    assert MEASURABLE in source.keys
    assert main(["data", "pack", section.root, str(tmp_path / "packed")]) == 0
    packed = open_source(section.model_copy(update={"source": "shards", "root": str(tmp_path / "packed")}))
    assert MEASURABLE in packed.keys
    for number in range(4):
        check(source.read(number), number)
        check(packed.read(number), number)


def test_a_map_of_another_size_is_named(section: Data) -> None:
    assert cv2.imwrite(str(Path(section.root) / "valid0.png"), np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError, match=r"valid0\.png: size mismatch, valid is 4x3"):
        open_source(section).read(0)


def test_sets_without_it_know_nothing(section: Data, tmp_path: Path) -> None:
    other = write_frames(tmp_path / "other", with_map=False)
    members = [(name, each, open_source(each)) for name, each in (("a", section), ("b", other))]
    joined = JoinedSource([Member(name, source, split.split(source.frames, each)) for name, each, source in members])
    assert MEASURABLE in joined.keys and not joined.read(4)[MEASURABLE].any()
    assert collate([joined.read(0), joined.read(4)])[MEASURABLE].dtype == torch.uint8


def loss_of(batch: Any, logits: torch.Tensor, **options: float) -> float:
    prediction: Any = {"depth": torch.ones_like(logits), "valid": logits}
    return losses.total(prediction, batch, Loss(valid_bce=1.0, **options))[0].mean().item()


def test_gaps_that_the_map_calls_valid_are_trained_as_such(section: Data) -> None:
    batch = to_device(collate([open_source(section).read(0)]), CPU, min_depth=0.001, max_depth=10.0)
    said = batch[MEASURABLE] == YES
    right = torch.where(said, 50.0, -50.0)
    assert loss_of(batch, right) == pytest.approx(0, abs=1e-6)
    assert loss_of(batch, right, valid_missing=0.0) == pytest.approx(0, abs=1e-6)  # nothing is missing
    nowhere = torch.full_like(right, 2.0)
    yes, no = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert loss_of(batch, nowhere) == pytest.approx((2 * yes + no) / 3, rel=1e-5)  # a third is sky
    without: Any = {key: value for key, value in batch.items() if key != MEASURABLE}
    assert loss_of(without, right) > 1  # gaps would be a no


def test_it_is_scored_at_the_size_of_the_truth(section: Data) -> None:
    wide = section.model_copy(update={"size": (48, 64)})
    ((_, batch),) = eval_batches(open_source(section), [0, 1], wide, batch_size=2)
    batch = to_device(batch, CPU, min_depth=0.001, max_depth=10.0)
    assert tuple(batch[MEASURABLE].shape) == (2, 1, *SIZE)
    logits = torch.where(batch[MEASURABLE] == YES, 3.0, -3.0)
    frames: Any = valid_mask_scores.of_frames({"valid": logits}, batch, (0.001, 10.0))
    summary = valid_mask_scores.summary(frames, ["s", "s"])
    assert summary["overall"]["iou"]["mean"] == 1.0 and "missing" not in summary["classes"]
    assert summary["classes"]["beyond"]["share"] == pytest.approx(1 / 3)


def test_beyond_a_turned_image_nothing_is_known(section: Data) -> None:
    sample = open_source(section).read(0)
    turned = show(sample, View.of(sample).rotate(30.0))
    assert {*np.unique(turned[MEASURABLE]).tolist()} == {0, YES, NO}
