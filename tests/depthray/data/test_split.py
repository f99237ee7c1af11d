"""The frames that are held out: complete scenes, the declared ones if there are, and never a scene on both sides."""

from __future__ import annotations

import pytest

from depthray.config.sections import Data
from depthray.data.source import Frame
from depthray.data.split import count_scenes, declared, overlaps, side, split
from depthray.errors import DataError, UsageError


def frames(*scenes):
    """Frames from (scene, how many[, split])."""
    rows = [(scene, *rest) for scene, count, *rest in scenes for _ in range(count)]
    return [Frame(f"f{i}", scene, rest[0] if rest else "", "") for i, (scene, *rest) in enumerate(rows)]


MANY = frames(*((f"scene-{i}", 3 + i % 4) for i in range(60)))


def scenes_of(indices):
    return {MANY[index].scene for index in indices}


def test_every_frame_is_on_exactly_one_side():
    sides = split(MANY, Data())
    assert sorted([*sides.train, *sides.val, *sides.test]) == list(range(len(MANY)))
    assert list(sides.train) == sorted(sides.train)


@pytest.mark.parametrize("seed", range(5))
def test_no_scene_on_both_sides(seed):
    sides = split(MANY, Data(split_seed=seed))
    assert not scenes_of(sides.train) & scenes_of(sides.val)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.8])
def test_share_held_out_is_nearly_the_requested_one(share):
    sides = split(MANY, Data(val_fraction=share))
    assert share * len(MANY) - 3 < len(sides.val) <= share * len(MANY)


def test_split_depends_on_the_seed_only():
    assert split(MANY, Data()) == split(list(MANY), Data())
    assert split(MANY, Data()).val != split(MANY, Data(split_seed=1)).val


def test_order_of_frames_does_not_matter():
    backwards = MANY[::-1]
    held = {backwards[index].id for index in split(backwards, Data()).val}
    assert held == {MANY[index].id for index in split(MANY, Data()).val}


def test_at_least_one_scene_is_held_out():
    assert split(frames(("big", 50), ("small", 2)), Data(val_fraction=0.01)).val == [50, 51]


def test_something_is_left_to_train_on():
    assert len(split(frames(("a", 2), ("b", 2)), Data(val_fraction=1)).train) == 2


def test_declared_sides_win():
    sides = split(frames(("a", 2, "train"), ("b", 1, "val"), ("c", 2, "test"), ("d", 1)), Data(val_fraction=0.9))
    assert [list(each) for each in sides] == [[0, 1, 5], [2], [3, 4]]


def test_val_is_held_out_of_the_declared_train():
    sides = split(frames(("a", 2, "train"), ("b", 2, "train"), ("c", 2, "test")), Data(val_fraction=0.5))
    assert sides.test == [4, 5]
    assert len(sides.val) == len(sides.train) == 2


def test_declared_overlap_is_refused():
    shared = frames(("a", 2, "train"), ("b", 1, "val"), ("a", 1, "val"))
    assert overlaps(shared) == {"a": ["train", "val"]}
    with pytest.raises(DataError, match="scene 'a' is declared train and val"):
        split(shared, Data())


@pytest.mark.parametrize(
    ("made", "values", "message"),
    [
        (frames(("a", 9)), {}, "whole scenes are held out, and there is 1 scene"),
        (frames(("a", 9), ("b", 9)), {"val_fraction": 0}, r"data\.val_fraction is 0"),
        (frames(("a", 9, "val")), {}, "no frames to train on"),
        (frames(("a", 9, "vla")), {}, r"frame 'f0': unknown split 'vla' \(did you mean 'val'"),
        ([], {}, "no frames to validate on"),
    ],
)
def test_empty_or_unknown_side(made, values, message):
    with pytest.raises(DataError, match=message):
        split(made, Data(**values))


def test_one_side_of_a_set_that_has_only_that():
    assert side(frames(("a", 3, "test")), Data(), "test") == [0, 1, 2]
    assert side(frames(("a", 3)), Data(), "all") == [0, 1, 2]
    assert side(MANY, Data(), "val") == split(MANY, Data()).val


def test_side_that_is_empty_or_unknown():
    with pytest.raises(DataError, match="split 'test' has no frames: no frame of the index is declared test"):
        side(MANY, Data(), "test")
    with pytest.raises(UsageError, match=r"no split 'vall'.*'val'"):
        side(MANY, Data(), "vall")


def test_scenes_of_a_side_and_what_the_set_declares():
    sides = split(MANY, Data())
    assert count_scenes(MANY, sides.val) == len(scenes_of(sides.val)) > 1
    assert count_scenes(MANY, sides.train) + count_scenes(MANY, sides.val) == 60
    made = frames(("a", 2, "train"), ("b", 1, "val"), ("c", 2, "test"))
    assert declared(made, "val") == [2] and declared(made, "test") == [3, 4] and not declared(MANY, "val")
