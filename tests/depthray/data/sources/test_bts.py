"""Lists of BTS: `rgb depth focal` a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from layouts_nyu import PER_SCENE, SCENES, bts, millimetres, room, save
from layouts_other import kitti_lists

from depthray.config.sections import Data
from depthray.data.packing import shard_encoding
from depthray.data.sources import bts as form
from depthray.data.sources import open_source, recognise
from depthray.errors import DataError

TRAIN = SCENES * PER_SCENE
LIST = "nyudepthv2_train_files_with_gt.txt"
KITTI = "2011_09_26/d_sync/image_02/data/0000000069.png {} 721.5377\n"
KITTI_DEPTH = "d_sync/proj_depth/groundtruth/image_02/0000000069.png"


@pytest.fixture
def section(tmp_path):
    return bts(tmp_path / "set")


@pytest.fixture
def root(section):
    return Path(section.root)


def frame_of(root, *, size, focal):
    """A set of one frame."""
    save(root / "a/rgb_00000.jpg", np.zeros((*size, 3), np.uint8))
    save(root / "a/sync_depth_00000.png", np.ones(size, np.uint16))
    (root / "mine.txt").write_text(f"a/rgb_00000.jpg a/sync_depth_00000.png {focal}\n")
    return root


def test_depth_is_millimetres(section):
    source = open_source(section)
    training = next(index for index, frame in enumerate(source.frames) if frame.id == "kitchen_0001/rgb_00001")
    np.testing.assert_allclose(source.read(training)["depth"], room(4)["depth"], atol=5.1e-4)
    assert np.abs(source.read(training)["image"].astype(int) - room(4)["image"]).mean() < 8  # JPEG


def test_slashes_folders_and_sides(section):
    frames = open_source(section).frames
    assert ("kitchen_0000/rgb_00000", "kitchen_0000", "train") in {frame[:3] for frame in frames}
    assert ("kitchen/rgb_00001", "kitchen", "test") in {frame[:3] for frame in frames}
    assert len(frames) == TRAIN + 2


def test_names_may_be_relative_to_the_root(section, root):
    for folder in (root / "sync").iterdir():
        folder.rename(root / folder.name)
    assert len(open_source(section).frames) == TRAIN + 2


def test_one_list_may_be_named(section, root):
    frames = open_source(section.model_copy(update={"root": str(root / LIST)})).frames
    assert {frame.split for frame in frames} == {"train"}
    assert recognise(root / LIST) == "bts"


def test_a_list_of_another_name_declares_no_side(section, root):
    (root / LIST).rename(root / "mine.txt")
    assert {frame.split for frame in open_source(section).frames} == {"", "test"}


def test_the_camera_of_nyu_is_known_by_its_focal_length(section, tmp_path):
    root = frame_of(tmp_path / "one", size=(480, 640), focal=518.8579)
    matrix = open_source(section.model_copy(update={"root": str(root)})).read(0)["intrinsics"]
    assert [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]] == pytest.approx(
        [518.8579, 519.4696, 325.5824, 253.7362], abs=1e-3
    )


def test_of_another_camera_the_middle_is_assumed(section, tmp_path):
    root = frame_of(tmp_path / "one", size=(5, 9), focal=700.25)
    matrix = open_source(section.model_copy(update={"root": str(root)})).read(0)["intrinsics"]
    assert matrix.tolist() == [[700.25, 0, 4], [0, 700.25, 2], [0, 0, 1]]


def test_fingerprint_follows_the_focal_length(section, root):
    first = open_source(section).fingerprint
    (root / LIST).write_text((root / LIST).read_text().replace("518.8579", "500"))
    assert open_source(section).fingerprint != first


def test_lines_without_depth_are_left_out_and_reported(section, root):
    text = (root / LIST).read_text()
    (root / LIST).write_text("gone/rgb_1.jpg None 518.8579\n" + text)
    source: Any = open_source(section)
    assert len(source.frames) == TRAIN + 2
    assert "1 lines left out" in source.notes[0]
    (root / "sync/kitchen_0000/rgb_00001.jpg").unlink()
    with pytest.raises(DataError, match=rf"\(frame {2 + 1}, {LIST} line 3\)"):  # lines are counted as in the file
        open_source(section)


def test_kitti_is_another_form(section, root):
    assert not form.fits(root.parent)
    for depth in (KITTI_DEPTH, "None"):
        (root.parent / "eigen_train_files_with_gt.txt").write_text(KITTI.format(depth))
        assert not form.fits(root.parent)
    (root / LIST).write_text((root / LIST).read_text() + KITTI.format(KITTI_DEPTH))
    with pytest.raises(DataError, match=rf"{LIST}: line {TRAIN + 1} is of a list of KITTI"):
        open_source(section.model_copy(update={"root": str(root / LIST)}))


def test_lists_of_kitti_are_read_in_their_own_unit(tmp_path):
    section = kitti_lists(tmp_path)
    source: Any = open_source(section.model_copy(update={"source": "bts"}))
    assert source.fingerprint == open_source(section).fingerprint
    stored = cv2.imread(str(source.path(0, "depth")), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(source.read(0)["depth"], stored / np.float32(256))
    assert shard_encoding(Data(source="bts"), source) == "uint16_256"
    assert shard_encoding(Data(source="bts"), open_source(bts(tmp_path / "nyu"))) == "uint16_mm"


@pytest.mark.parametrize(
    "text",
    [
        "1305031102.175304 rgb/1305031102.175304.png\n",  # TUM RGB-D
        "1305031102.1753 rgb/1.png 1305031102.1604 depth/1.png\n",
        "sequence1\nsequence2\n",  # 7-Scenes
        "a.jpg b.jpg\n",
        "",
    ],
)
def test_other_texts_are_no_lists(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    assert not form.fits(tmp_path)


def test_a_binary_text_is_no_list(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00" * 9)
    assert not form.fits(tmp_path)


@pytest.mark.parametrize("line", ["a.jpg b.png", "a.jpg b.png focal", "a.jpg b.png 0", "a.jpg b.png 1 2"])
def test_bad_line(section, root, line):
    (root / LIST).write_text((root / LIST).read_text() + line)
    with pytest.raises(DataError, match=rf"{LIST}: line {TRAIN + 1} must be `rgb depth focal`.*is '{line}'"):
        open_source(section)


def test_8_bit_depth_is_refused(section, root):
    save(root / "official_splits/test/kitchen/sync_depth_00000.png", np.ones((36, 48), np.uint8))
    with pytest.raises(DataError, match=r"sync_depth_00000\.png: depth is stored as uint8.*\(frame 0, .*line 1\)"):
        open_source(section).read(0)


def test_different_sizes(section, root):
    save(root / "official_splits/test/kitchen/sync_depth_00001.png", millimetres(np.ones((3, 4))))
    with pytest.raises(DataError, match=r"sync_depth_00001\.png: size mismatch.*\(frame 1, "):
        open_source(section).read(1)
