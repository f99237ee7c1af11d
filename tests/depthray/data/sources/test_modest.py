"""MODEST Museum: images in four parts, and a split that shows neither a background nor a person on both sides."""

from __future__ import annotations

import numpy as np
import pytest
from layouts_other import frame, modest

from depthray.data.sources import open_source, recognise
from depthray.data.sources.modest import choose_held_out
from depthray.data.split import split
from depthray.errors import DataError


def identities(source, indices, part):
    return {source.frames[index].id.split("_")[part] for index in indices}


@pytest.mark.parametrize(("share", "val", "train"), [(0.1, 1, 9), (0.5, 4, 4), (1.0, 9, 1)])
def test_no_identity_is_on_both_sides(tmp_path, share, val, train):
    section = modest(tmp_path, backgrounds=4, persons=4).model_copy(update={"val_fraction": share})
    source = open_source(section)
    sides = split(source.frames, section)
    for part in (0, 1):
        assert not identities(source, sides.train, part) & identities(source, sides.val, part)
    assert (len(sides.val), len(sides.train)) == (2 * val, 2 * train)
    assert len(source.frames) == 2 * (val + train)  # what is half seen is on neither side


def test_the_seed_chooses(tmp_path):
    section = modest(tmp_path, backgrounds=4, persons=4)
    chosen = set()
    for seed in range(8):
        source = open_source(section.model_copy(update={"split_seed": seed}))
        chosen.add(tuple(each.id for each in source.frames if each.split == "val"))
    assert len(chosen) > 3


def test_no_held_out_share_keeps_all_for_training(tmp_path):
    frames = open_source(modest(tmp_path).model_copy(update={"val_fraction": 0.0})).frames
    assert len(frames) == 18
    assert {each.split for each in frames} == {"train"}


def test_one_of_a_hundred_and_never_all():
    names = [f"bg{number:03d}" for number in range(100)]
    assert len(choose_held_out(names, 0.3, "0")) == 30
    assert len(choose_held_out(names, 1, "0")) == 99
    assert len(choose_held_out(names, 0.001, "0")) == 1
    assert (
        choose_held_out(names, 0.3, "0")
        == choose_held_out(reversed(names), 0.3, "0")
        != choose_held_out(names, 0.3, "1")
    )


def test_all_parts_are_read(tmp_path):
    source = open_source(modest(tmp_path))
    assert set(source.keys) == {"image", "depth", "background", "mask"}
    background, person, placement = (int(part[-2:]) for part in source.frames[0].id.split("_"))
    sample, true = source.read(0), frame(4 * background + (person + placement) % 4)
    assert set(np.unique(sample["mask"])) <= {0, 1}
    assert (sample["mask"] != true["mask"]).mean() < 0.05
    assert np.abs(sample["depth"] - np.minimum(true["depth"], 10)).mean() < 0.1
    assert np.abs(sample["image"].astype(int) - true["image"]).mean() < 12
    assert np.abs(sample["background"].astype(int) - frame(4 * background)["background"]).mean() < 12


def test_only_what_is_wanted_is_read(tmp_path):
    section = modest(tmp_path).model_copy(update={"inputs": ("image",), "targets": ("mask",)})
    (tmp_path / "bg").rename(tmp_path / "unused")
    assert set(open_source(section).read(0)) >= {"image", "mask", "depth"}


def test_a_line_that_is_none_is_refused(tmp_path):
    section = modest(tmp_path)
    with (tmp_path / "file_map.txt").open("a") as file:
        file.write("bg001 bg001_fg001_01\n")
    with pytest.raises(DataError, match=r"file_map.txt: line 19 is not 4 names by tab"):
        open_source(section)


def test_it_is_recognised(tmp_path):
    modest(tmp_path)
    assert recognise(tmp_path) == "modest"
