"""Frames of sparse-to-dense and FastDepth: one HDF5 file each."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from layouts_nyu import PER_SCENE, SCENES, SIZE, room, s2d

from depthray.data.readers import kinect
from depthray.data.sources import open_source, recognise, synthetic
from depthray.data.sources import s2d as form
from depthray.errors import DataError

FIRST = "train/kitchen_0000/00001.h5"


@pytest.fixture
def section(tmp_path):
    return s2d(tmp_path / "set")


@pytest.fixture
def root(section):
    return Path(section.root)


def change(path, **arrays):
    """Put other arrays instead of those of a file; None removes one."""
    with h5py.File(path, "r+") as file:
        for name, array in arrays.items():
            del file[name]
            if array is not None:
                file[name] = array


def test_frames_are_exact(section):
    sample = open_source(section).read(4)
    np.testing.assert_array_equal(sample["image"], room(4)["image"])
    np.testing.assert_array_equal(sample["depth"], room(4)["depth"])
    assert sample["image"].flags.c_contiguous


def test_the_camera_is_nyus_kinect(section, root):
    matrix = open_source(section).read(0)["intrinsics"]
    np.testing.assert_allclose(matrix, kinect.COLOUR.matrix(SIZE))
    change(root / FIRST, rgb=np.zeros((3, 480, 640), np.uint8), depth=np.ones((480, 640), np.float32))
    matrix = open_source(section).read(0)["intrinsics"]
    np.testing.assert_allclose((matrix[0, 0], matrix[1, 2]), (518.8579, 253.7362), rtol=1e-6)


def test_official_frames_are_test_frames(section):
    frames = open_source(section).frames
    assert frames[0] == ("train/kitchen_0000/00001", "kitchen_0000", "train", "s2d")
    assert frames[-1] == ("val/official/00002", "official", "test", "s2d")
    assert len(frames) == SCENES * PER_SCENE + 2


def test_other_held_out_frames_validate(section, root):
    (root / "val/official").rename(root / "val/bedroom_0007")
    assert {frame.split for frame in open_source(section).frames} == {"train", "val"}


def test_shards_are_another_form(root, tmp_path):
    synthetic.write_rooms(tmp_path / "train/rooms", frames=2, size=(24, 32), layout="shards")
    assert not form.fits(tmp_path)
    assert not form.fits(tmp_path / "train/rooms")
    assert recognise(root) == "s2d"


def test_missing_file(section, root):
    source = open_source(section)
    (root / FIRST).unlink()
    with pytest.raises(DataError, match=rf"{FIRST}: "):
        source.read(0)
    with pytest.raises(DataError, match=rf"{FIRST}: No such file"):
        _ = source.fingerprint


@pytest.mark.parametrize("share", [0, 0.2, 0.9])
def test_truncated_file(section, root, share):
    content = (root / FIRST).read_bytes()
    (root / FIRST).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"{FIRST}: not a complete HDF5 file"):
        open_source(section).read(0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"rgb": None}, "lacks what this form of data set has.*rgb"),
        ({"depth": None}, "lacks what this form of data set has.*depth"),
        ({"rgb": np.ones((*SIZE, 3), np.uint8)}, r"rgb is uint8 \(36, 48, 3\), wanted uint8 \(3, H, W\)"),
        ({"rgb": np.ones((3, *SIZE), np.float32)}, "rgb is float32"),
        ({"depth": np.ones(SIZE, np.uint16)}, "depth is stored as uint16"),
        ({"depth": np.ones((3, 4), np.float32)}, "size mismatch, depth is 4x3 but rgb is 48x36"),
        ({"depth": "text"}, "depth has shape"),
    ],
)
def test_bad_file(section, root, arrays, message):
    change(root / FIRST, **arrays)
    with pytest.raises(DataError, match=rf"{FIRST}: {message}"):
        open_source(section).read(0)


def test_odd_depth_is_reported(section, root):
    depth = np.ones(SIZE, np.float32)
    depth[0, :3] = np.nan, np.inf, -1
    change(root / FIRST, depth=depth)
    source = open_source(section)
    assert "1 negative values, read as unmeasured" in source.faults(0)[0]
    assert (source.read(0)["depth"] == 0).sum() == 3
