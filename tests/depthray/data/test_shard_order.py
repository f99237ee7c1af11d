"""data.order=shards: every rank has shards of its own, and the ranks together see each frame once an epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from made_sources import Drawn
from process_groups import launch

from depthray.config.sections import Augment, Data
from depthray.data import packing
from depthray.data.loader import TrainLoader, eval_batches
from depthray.data.shard_order import WINDOW, ShardOrder, shard_order_of
from depthray.data.sources import open_source
from depthray.errors import UsageError
from depthray.runs.run import FREE_ON_RESUME
from depthray.training.preflight import load


def line(sizes: Sequence[int], seed: int = 3) -> ShardOrder:
    return ShardOrder(np.repeat(np.arange(len(sizes)), sizes), seed=seed)


def plans(line: ShardOrder, frames: Sequence[int], *, world: int, batch: int, epoch: int = 0) -> list[list[list[int]]]:
    """Frames by rank and step."""
    made = []
    for rank in range(world):
        loader = TrainLoader(
            Drawn(max(frames) + 1),
            frames,
            Data(size=(12, 16)),
            Augment(),
            seed=3,
            batch_size=batch,
            rank=rank,
            world_size=world,
            shard_order=line,
        )
        made.append([[index for part in step for _, index in part] for step in loader.plan(epoch)])
    return made


UNEVEN = (30, 7, 30, 1, 30, 30, 12, 30, 30, 30)


@pytest.mark.parametrize("world", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("sizes", [UNEVEN, (230,), (115, 115)])
def test_every_frame_comes_once_but_for_the_rest_of_a_batch(world: int, sizes: tuple[int, ...]) -> None:
    frames, batch = [i for i in range(sum(sizes)) if i % 5], world * 3
    made = plans(line(sizes), frames, world=world, batch=batch)
    assert {len(steps) for steps in made} == {len(frames) // batch}
    seen = [index for rank in made for step in rank for index in step]
    assert len(set(seen)) == len(seen) == len(frames) // batch * batch
    assert set(seen) <= set(frames)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_no_shards_but_those_across_a_cut(world: int) -> None:
    numbers = np.repeat(np.arange(len(UNEVEN)), UNEVEN)
    made = plans(line(UNEVEN), range(sum(UNEVEN)), world=world, batch=world)
    own = [{int(numbers[index]) for step in rank for index in step} for rank in made]
    assert sum(map(len, own)) <= len(UNEVEN) + world - 1
    assert all(not own[i] & own[j] for i in range(world) for j in range(i + 2, world))


def test_a_rank_keeps_its_frames_over_the_epochs_in_another_order() -> None:
    one, two = (plans(line(UNEVEN), range(230), world=2, batch=2, epoch=epoch) for epoch in (0, 1))
    for rank in range(2):
        before, after = (list(chain(*each[rank])) for each in (one, two))
        assert set(before) == set(after) and before != after


def test_the_deal_and_the_order_follow_from_the_seed() -> None:
    first = line([5] * 20).part(range(100), rank=0, world_size=2).tolist()
    assert first == line([5] * 20).part(range(100), rank=0, world_size=2).tolist()
    assert first != line([5] * 20, seed=4).part(range(100), rank=0, world_size=2).tolist()


def test_the_shuffle_reads_few_shards_at_a_time_and_mixes_them() -> None:
    numbers = np.repeat(np.arange(60), 50)
    made = ShardOrder(numbers, seed=0)
    order = numbers[made.shuffle(np.arange(3000), epoch=0, rank=0)]
    spans = [np.flatnonzero(order == shard)[[0, -1]] for shard in range(60)]
    open_at_once = max(sum(first <= moment <= last for first, last in spans) for moment in range(3000))
    assert open_at_once <= WINDOW + 1
    assert min(len(set(order[start : start + 50].tolist())) for start in range(500, 2500, 50)) >= WINDOW - 2


def test_an_epoch_continues_from_any_step() -> None:
    options = {"seed": 3, "batch_size": 4, "rank": 1, "world_size": 2, "shard_order": line([6] * 6)}
    loader = TrainLoader(Drawn(36), range(36), Data(size=(12, 16)), Augment(), **options)
    complete, rest = list(loader.epoch(2)), list(loader.epoch(2, first_step=4))
    assert len(complete) == 9 and len(rest) == 5
    for one, other in zip(complete[4:], rest, strict=True):
        assert one[0]["id"] == other[0]["id"] and torch.equal(one[0]["image"], other[0]["image"])


def test_validation_batches_stay_in_their_shard_and_do_not_depend_on_the_world_size() -> None:
    sizes, frames = (9, 3, 14, 10), range(0, 36, 2)
    numbers = np.repeat(np.arange(4), sizes)
    found = []
    for world in (1, 2, 3, 8):
        options = {"batch_size": 4, "world_size": world, "shard_order": line(sizes)}
        batches = chain(
            *(eval_batches(Drawn(36), frames, Data(size=(12, 16)), rank=r, **options) for r in range(world))
        )
        found.append([indices for indices, _ in batches])
    assert all(each == found[0] for each in found)
    assert sorted(chain(*found[0])) == list(frames)
    assert all(len({int(numbers[index]) for index in group}) == 1 for group in found[0])


def test_frames_of_sheets_are_in_the_first_shards_in_order() -> None:
    made = line([10] * 30)
    first = made.part(range(300), rank=0, world_size=4).tolist()
    assert set(made.first(range(300))) <= set(first)


def test_only_shards_can_be_dealt() -> None:
    section = Data(source="synthetic", order="shards", frames=8)
    source = open_source(section)
    with pytest.raises(UsageError, match=r"data\.order=shards divides shards .*data\.source=synthetic has none"):
        shard_order_of(source, section, seed=0)


def test_the_order_is_part_of_the_numbers_of_a_run() -> None:
    assert load("demo").data.order == "frames"
    assert "data.order" not in FREE_ON_RESUME
    with pytest.raises(UsageError, match=r"data\.order='shard'.*did you mean 'shards'"):
        load("demo", ["data.order=shard"])


# The first process trains alone before it joins the other.
SCORE = """
import json, os, sys, torch
from pathlib import Path
from depthray import distributed
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.data.sources.shards import Shards
from depthray.training.state import begin
from depthray.training.loop import Epoch, fit, validate

read, read_frame = set(), Shards._read
def recording(source, index, **options):
    read.add(int(source.shard_numbers[index]))
    return read_frame(source, index, **options)
Shards._read = recording

def train(path):
    read.clear()
    recipe = preflight.load("demo", sys.argv[2:])
    frames = Frames.open(recipe)
    state = begin(recipe, torch.device("cpu"))
    scores = validate(recipe, state, frames)[0].scores()
    epochs = [event for event in fit(recipe, state, frames) if isinstance(event, Epoch)]
    per_rank = distributed.gather([sorted(read)])
    if distributed.is_main():
        path.write_text(json.dumps({"scores": scores, "read": per_rank, "steps": epochs[-1].step}))

out = Path(sys.argv[1])
if os.environ["RANK"] == "0":
    train(out / "1.json")
distributed.start(gpu=False)
train(out / "2.json")
distributed.stop()
"""


def test_two_processes_train_on_shards_of_their_own(tmp_path: Path) -> None:
    source = open_source(Data(source="synthetic", frames=48, size=(32, 64)))
    packing.pack(source, tmp_path / "packed", provenance={}, frames_per_shard=4)
    options = [
        *("data.source=shards", f"data.root={tmp_path / 'packed'}", "data.order=shards", "data.size=32,64"),
        *("train.batch_size=4", "train.epochs=1", "train.precision=fp32", "data.val_fraction=0.34"),
    ]
    launch(SCORE, 2, str(tmp_path), *options)
    one, two = (json.loads((tmp_path / f"{processes}.json").read_text()) for processes in (1, 2))
    assert one["scores"] == two["scores"]  # bit for bit
    assert one["steps"] == two["steps"]
    assert one["read"] == [list(range(12))]
    mine, other = map(set, two["read"])
    assert mine | other == set(range(12)) and max(len(mine), len(other)) <= 8
