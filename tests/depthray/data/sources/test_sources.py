"""The contract every form of a data set keeps; a new module of depthray/data/sources is covered by a line in MAKERS."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from frames import folder_dataset
from layouts_nyu import MAKERS as NYU
from layouts_other import MAKERS as OTHERS
from paths import ROOT

from depthray.batch import STRINGS, collate
from depthray.config.sections import Data
from depthray.data.packing import pack
from depthray.data.readers.frame_files import PAIR, FrameFiles, FrameRow
from depthray.data.source import Frame
from depthray.data.sources import names, open_source, recognise


def folder(path):
    return Data(source="folder", root=str(folder_dataset(path)), inputs=("image", "semantics"))


def shards(path):
    pack(open_source(folder(path / "files")), path / "shards", provenance={}, frames_per_shard=5)
    return Data(source="shards", root=str(path / "shards"), inputs=("image", "semantics"))


def synthetic(path):
    return Data(source="synthetic", frames=9, size=(24, 32), inputs=("image", "semantics"))


PAGE = ROOT / "docs" / "data.md"
MAKERS = {"folder": folder, "shards": shards, "synthetic": synthetic, **NYU, **OTHERS}


@pytest.fixture(params=names())
def section(request, tmp_path):
    return MAKERS[request.param](tmp_path)


def test_sample_agrees_with_the_index(section):
    source = open_source(section)
    for index in (0, len(source.frames) - 1):
        sample, frame = source.read(index), source.frames[index]
        assert set(sample) == source.keys | set(STRINGS)
        assert (sample["id"], sample["scene"], sample["source"]) == (frame.id, frame.scene, frame.source)
        assert sample["image"].dtype == np.uint8
        assert sample["depth"].dtype == np.float32
        assert sample["image"].shape == (*sample["depth"].shape, 3)


def test_reading_twice_and_elsewhere_gives_the_same(section):
    source = open_source(section)
    source.read(0)  # opens what is opened lazily
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - as loader processes do
    for index in (1, 0, 1):
        for key in source.keys:
            np.testing.assert_array_equal(source.read(index)[key], copy.read(index)[key])


def test_a_sample_belongs_to_its_reader(section):
    source = open_source(section)
    before = {key: source.read(0)[key].copy() for key in source.keys}
    for key in source.keys:
        source.read(0)[key][:] = 0
    for key in source.keys:
        np.testing.assert_array_equal(source.read(0)[key], before[key])


def test_samples_collate(section):
    source = open_source(section)
    batch = collate([source.read(index) for index in range(3)])
    assert batch["image"].shape[:2] == (3, 3)
    assert batch["depth"].shape[:2] == (3, 1)


def test_fingerprint_is_the_same_for_the_same_frames(section):
    fingerprint = open_source(section).fingerprint
    assert len(fingerprint) == 64
    assert open_source(section).fingerprint == fingerprint


def test_fingerprints_are_those_that_checkpoints_have_recorded(tmp_path):
    (tmp_path / "a.png").write_bytes(b"12345")
    (tmp_path / "b.png").write_bytes(b"123")
    row = FrameRow(Frame("a", "hall", "train", "x"), ("a.png", "b.png"), named="list line 1", camera=("5.0",))
    files = {tag: type(tag, (FrameFiles,), {"fingerprint_tag": tag}) for tag in ("Bts", "Kitti")}
    digests = {tag: made(tmp_path, [row], keys=frozenset(PAIR), encoding="uint16_mm") for tag, made in files.items()}
    assert {tag: source.fingerprint[:16] for tag, source in digests.items()} == {
        "Bts": "6d1766caf2e76ff6",
        "Kitti": "9dee6ef0d7e95ea9",
    }


def test_every_form_of_files_has_a_fingerprint_of_its_own(section):
    source = open_source(section)
    if isinstance(source, FrameFiles) and section.source != "folder":  # a folder's is that of its index
        assert source.fingerprint_tag != FrameFiles.fingerprint_tag


def test_nothing_is_odd_about_good_frames(section):
    assert open_source(section).faults(0) == []


@pytest.mark.parametrize("make", [folder, shards])
def test_form_is_recognised_by_its_path(make, tmp_path):
    made = make(tmp_path)
    assert recognise(Path(made.root)) == made.source


@pytest.mark.parametrize("form", names())
def test_every_form_is_described(form):
    assert f"`{form}`" in PAGE.read_text() or f"### {form}" in PAGE.read_text()
