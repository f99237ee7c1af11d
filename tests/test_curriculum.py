"""Curriculum: chunks hold every frame once, easy ones first if asked, and epochs go through them in turn."""

from __future__ import annotations

import numpy as np
import pytest

from depthray import recipe
from depthray.data.curriculum import cut, difficulty
from depthray.data.frames import Frames
from depthray.data.sources import open_source

SMALL = [
    "data.size=16,32",
    "data.frames=24",
    "train.batch_size=4",
    "curriculum.chunks=3",
    "curriculum.epochs_per_chunk=2",
]


@pytest.mark.parametrize("order", ["random", "difficulty"])
def test_chunks_hold_every_training_frame_once(order: str) -> None:
    made = recipe.load("demo", [*SMALL, f"curriculum.order={order}"])
    frames = Frames.open(made)
    assert sorted(index for chunk in frames.chunks for index in chunk) == frames.split.train
    assert max(map(len, frames.chunks)) - min(map(len, frames.chunks)) <= 1


def test_difficulty_puts_easy_frames_first() -> None:
    made = recipe.load("demo", [*SMALL, "curriculum.order=difficulty"])
    source = open_source(made.data)
    chunks = cut(list(range(24)), source, made.curriculum, seed=0)
    scores = [[difficulty(source.read(index)["depth"]) for index in chunk] for chunk in chunks]
    assert max(scores[0]) <= min(scores[1])
    assert max(scores[1]) <= min(scores[2])


def test_random_chunks_depend_on_the_seed_only() -> None:
    made = recipe.load("demo", SMALL)
    source = open_source(made.data)
    once, again, other = (cut(list(range(24)), source, made.curriculum, seed=seed) for seed in (0, 0, 1))
    assert once == again
    assert once != other


def test_epochs_go_through_the_chunks_in_turn() -> None:
    frames = Frames.open(recipe.load("demo", SMALL))
    names = [frame.id for frame in frames.source.frames]
    for epoch, chunk in ((0, 0), (1, 0), (2, 1), (5, 2), (6, 0)):
        trained = {name for step in frames.train_epoch(epoch) for batch in step for name in batch["id"]}
        assert trained <= {names[index] for index in frames.chunks[chunk]}
        assert trained


def test_difficulty_of_known_maps() -> None:
    flat = np.full((8, 8), 2.0, np.float32)
    step = flat.copy()
    step[:, 4:] = 4.0
    holes = np.where(np.eye(8) > 0, 0, step).astype(np.float32)
    assert difficulty(flat) == 0.0
    assert difficulty(step) == pytest.approx(np.log(2) * 8 / (7 * 8 * 2))
    assert 0 < difficulty(holes) < 3 * difficulty(step)
    assert difficulty(np.zeros((8, 8), np.float32)) == float("inf")
