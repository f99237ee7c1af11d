"""Curriculum: chunks hold every frame once, easy ones first if configured, and epochs go through them in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from depthray.batch import Sample
from depthray.config.sections import Curriculum, Loss
from depthray.data.curriculum import cut_into_chunks, difficulty, loss_at, size_at
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.errors import DataError, UsageError
from depthray.training import preflight
from depthray.training.frames import Frames

SMALL = [
    "data.size=16,32",
    "data.frames=24",
    "train.batch_size=4",
    "curriculum.chunks=3",
    "curriculum.epochs_per_chunk=2",
]


@pytest.mark.parametrize("order", ["random", "difficulty"])
def test_chunks_hold_every_training_frame_once(order: str) -> None:
    made = preflight.load("demo", [*SMALL, f"curriculum.order={order}"])
    frames = Frames.open(made)
    assert sorted(index for chunk in frames.chunks for index in chunk) == frames.split.train
    assert max(map(len, frames.chunks)) - min(map(len, frames.chunks)) <= 1


def test_difficulty_puts_easy_frames_first() -> None:
    made = preflight.load("demo", [*SMALL, "curriculum.order=difficulty"])
    source = open_source(made.data)
    chunks = cut_into_chunks(list(range(24)), source, made.curriculum, seed=0)
    scores = [[difficulty(source.read(index)["depth"]) for index in chunk] for chunk in chunks]
    assert max(scores[0]) <= min(scores[1])
    assert max(scores[1]) <= min(scores[2])


def test_random_chunks_depend_on_the_seed_only() -> None:
    made = preflight.load("demo", SMALL)
    source = open_source(made.data)
    once, again, other = (cut_into_chunks(list(range(24)), source, made.curriculum, seed=seed) for seed in (0, 0, 1))
    assert once == again
    assert once != other


def test_epochs_take_the_chunks_in_turn() -> None:
    frames = Frames.open(preflight.load("demo", SMALL))
    names = [frame.id for frame in frames.source.frames]
    for epoch, chunk in ((0, 0), (1, 0), (2, 1), (5, 2), (6, 0)):
        trained = {name for step in frames.train_epoch(epoch) for batch in step for name in batch["id"]}
        assert trained <= {names[index] for index in frames.chunks[chunk]}
        assert trained


@pytest.mark.parametrize(("every", "expected"), [(1, [64, 128, 224, 224, 224]), (2, [64, 64, 128, 128, 224])])
def test_sizes_come_one_after_the_other_then_the_last(every: int, expected: list[int]) -> None:
    section = Curriculum(sizes=((64, 65), (128, 129)), epochs_per_size=every)
    found = [size_at(epoch, section, last=(224, 225)) for epoch in range(5)]
    assert found == [(side, side + 1) for side in expected]
    assert size_at(0, Curriculum(), last=(7, 8)) == (7, 8)


def test_depth_follows_the_focal_length_in_pixels() -> None:
    small = [*SMALL, "augment.crop=1", "augment.hflip=0", "curriculum.sizes=[[8,16]]", "curriculum.epochs_per_size=1"]
    plain, scaled = (
        Frames.open(preflight.load("demo", [*small, *more])) for more in ([], ["curriculum.scale_depth=true"])
    )
    for epoch, factor in ((0, 2.0), (1, 1.0)):  # 8x16 of 16x32
        ours, usual = (next(frames.train_epoch(epoch))[0] for frames in (scaled, plain))
        assert ours["id"] == usual["id"]
        assert torch.equal(ours["depth"], factor * usual["depth"]) and usual["depth"].any()
    (_, validation), (_, as_ever) = (next(iter(frames.val_batches())) for frames in (scaled, plain))
    assert torch.equal(validation["depth"], as_ever["depth"])
    with pytest.raises(UsageError, match=r"curriculum\.scale_depth is for frames that are resized"):
        preflight.load("demo", [*SMALL, "curriculum.scale_depth=true", "augment.crop_mode=plain", "data.fit=native"])


def test_scale_weights_come_one_after_the_other_then_the_recipes() -> None:
    section = Curriculum(scale_weights=((0.0, 1.0), (0.5, 0.5)), epochs_per_scale_weights=3)
    loss = Loss(multiscale=1.0, multiscale_weights=(1.0, 0.1), l1=0.3)
    stages = [loss_at(epoch, section, last=loss) for epoch in (0, 2, 3, 5, 6, 99)]
    weights = [(0.0, 1.0), (0.0, 1.0), (0.5, 0.5), (0.5, 0.5), (1.0, 0.1), (1.0, 0.1)]
    assert [stage.multiscale_weights for stage in stages] == weights
    assert all(stage.terms == loss.terms for stage in stages)
    assert loss_at(0, Curriculum(), last=loss) == loss


def test_small_epochs_are_small_and_validation_never_is() -> None:
    frames = Frames.open(
        preflight.load("demo", [*SMALL, "curriculum.sizes=[[8,8],[16,24]]", "curriculum.epochs_per_size=1"])
    )
    shapes = [tuple(next(frames.train_epoch(epoch))[0]["image"].shape[2:]) for epoch in range(4)]
    assert shapes == [(8, 8), (16, 24), (16, 32), (16, 32)]
    assert {tuple(batch["image"].shape[2:]) for _, batch in frames.val_batches()} == {(16, 32)}


def test_frames_without_depth_have_no_difficulty_but_can_be_trained_on() -> None:
    class Bare:
        def __init__(self, source: Source) -> None:
            self.frames, self.keys, self.fingerprint = source.frames, source.keys, source.fingerprint
            self.source = source

        def read(self, index: int) -> Sample:
            sample = self.source.read(index)
            del sample["depth"]
            return sample

    made = preflight.load("demo", [*SMALL, "curriculum.order=difficulty"])
    bare: Any = Bare(open_source(made.data))
    with pytest.raises(DataError, match=r"has no depth to rank it by; use curriculum\.order=random"):
        Frames(made, bare)
    frames = Frames(preflight.load("demo", SMALL), bare)
    assert frames.sanity_warnings() == []
    assert "depth" not in next(frames.train_epoch(0))[0]


def test_difficulty_of_known_maps() -> None:
    flat = np.full((8, 8), 2.0, np.float32)
    step = flat.copy()
    step[:, 4:] = 4.0
    holes = np.where(np.eye(8) > 0, 0, step).astype(np.float32)
    assert difficulty(flat) == 0.0
    assert difficulty(step) == pytest.approx(np.log(2) * 8 / (7 * 8 * 2))
    assert 0 < difficulty(holes) < 3 * difficulty(step)
    assert difficulty(np.zeros((8, 8), np.float32)) == float("inf")
