"""KITTI: frames, sides, units, cameras and scanner points of its layouts."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from layouts_other import DATE, DRIVES, frame, kitti, kitti_lists, kitti_selection

from depthray.config.sections import Sparse
from depthray.data.sources import open_source, recognise
from depthray.data.split import split
from depthray.errors import DataError, UsageError

STORED = {"inputs": ("image", "sparse"), "sparse": Sparse(pattern="stored")}


@pytest.mark.parametrize("adjacent", [False, True])
def test_frames_and_their_pixels(tmp_path, adjacent):
    source = open_source(kitti(tmp_path, adjacent=adjacent))
    assert len(source.frames) == 12
    assert source.frames[0].id == f"{DATE}_drive_0001_sync/image_02/0000000005"
    for index in (0, 11):
        sample = source.read(index)
        np.testing.assert_array_equal(sample["image"], frame(index)["image"])
        np.testing.assert_allclose(sample["depth"], frame(index)["depth"], atol=0.5 / 256 + 1e-6)


def test_folders_are_the_split_and_drives_the_scenes(tmp_path):
    section = kitti(tmp_path)
    source = open_source(section)
    sides = split(source.frames, section)
    assert {source.frames[index].scene for index in sides.val} == set(DRIVES["val"])
    assert {source.frames[index].scene for index in sides.train} == set(DRIVES["train"])


def test_far_depth_is_read(tmp_path):
    section = kitti(tmp_path)
    path = tmp_path / "train" / DRIVES["train"][0] / "proj_depth/groundtruth/image_02/0000000005.png"
    cv2.imwrite(str(path), np.full((24, 32), 85 * 256 + 128, np.uint16))
    assert (open_source(section).read(0)["depth"] == 85.5).all()


def test_points_are_read_only_where_they_are_requested(tmp_path):
    section = kitti(tmp_path)
    assert "sparse" not in open_source(section).keys
    assert "sparse" not in open_source(section.model_copy(update={"inputs": ("image", "sparse")})).keys
    sample = open_source(section.model_copy(update=STORED)).read(0)
    assert (sample["sparse"][:, ::8] == sample["depth"][:, ::8]).all()
    assert not sample["sparse"][:, 1].any()


@pytest.mark.parametrize("calibrated", [False, True])
def test_camera(tmp_path, calibrated):
    matrix = open_source(kitti(tmp_path, calibrated=calibrated)).read(0)["intrinsics"]
    focal = (700, 710, 310, 250) if calibrated else (721.5377, 721.5377, 609.5593, 172.854)
    np.testing.assert_allclose((matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]), focal, rtol=1e-6)


def test_a_damaged_calibration_is_refused(tmp_path):
    section = kitti(tmp_path, calibrated=True)
    (tmp_path / DATE / "calib_cam_to_cam.txt").write_text("P_rect_02: 1 2 3\n")
    with pytest.raises(DataError, match=r"calib_cam_to_cam.txt: no line 'P_rect_02:' with 12 numbers"):
        open_source(section)


def test_selected_frames(tmp_path):
    section = kitti_selection(tmp_path)
    source = open_source(section)
    assert [each.split for each in source.frames] == ["val"] * 3
    sample = source.read(1)
    assert set(source.keys) == {"image", "depth", "sparse", "intrinsics"}
    assert sample["intrinsics"][1, 2] == np.float32(149.8)
    np.testing.assert_allclose(sample["depth"], frame(1)["depth"], atol=0.5 / 256 + 1e-6)
    below = section.model_copy(update={"root": str(tmp_path / "depth_selection/val_selection_cropped")})
    assert list(open_source(below).frames) == list(source.frames)
    assert recognise(tmp_path) == "kitti"


def test_missing_colour_names_where_it_was_looked_for(tmp_path):
    section = kitti(tmp_path)
    (tmp_path / DATE).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"{DATE}/{DRIVES['train'][0]}/image_02/data: no colour images of the drive"):
        open_source(section)


def test_a_missing_frame_is_found_at_once(tmp_path):
    section = kitti(tmp_path)
    (tmp_path / DATE / DRIVES["val"][0] / "image_03/data/0000000006.png").unlink()
    with pytest.raises(DataError, match=r"image_03/data/0000000006.png: No such file"):
        open_source(section)


def test_the_unit_cannot_be_set_by_the_recipe(tmp_path):
    with pytest.raises(UsageError, match="states its own unit"):
        open_source(kitti(tmp_path).model_copy(update={"encoding": "uint16_256"}))


def test_eight_bits_are_refused(tmp_path):
    section = kitti(tmp_path)
    path = tmp_path / "train" / DRIVES["train"][0] / "proj_depth/groundtruth/image_02/0000000005.png"
    cv2.imwrite(str(path), np.ones((24, 32), np.uint8))
    with pytest.raises(DataError, match=r"0000000005.png: depth is stored as uint8"):
        open_source(section).read(0)


LISTS = [
    {},  # BTS's own folders
    {"annotated": "train", "raw": ""},  # those of KITTI's archives
    {"annotated": "", "dated": False},  # lists without dates
    {"annotated": "data_depth_annotated/val", "dated": False, "raw": ""},
]


@pytest.mark.parametrize("layout", LISTS)
def test_the_eigen_split_is_read_from_the_lists_of_bts(tmp_path, layout):
    section = kitti_lists(tmp_path, **layout)
    source: Any = open_source(section)
    assert recognise(tmp_path) == "kitti"
    train, test = DRIVES["train"], DRIVES["val"]
    assert {(each.scene, each.split) for each in source.frames} == {
        *((drive, "train") for drive in train),
        *((drive, "test") for drive in test),
    }
    assert len(source.frames) == 6 and len(source.notes) == 2
    assert "eigen_train_files_with_gt.txt: 1 lines left out, whose depth is None" in "".join(source.notes)
    index = next(i for i, each in enumerate(source.frames) if each.id == f"{train[0]}/image_02/0000000006")
    sample = source.read(index)
    np.testing.assert_array_equal(sample["image"], frame(1)["image"])
    np.testing.assert_allclose(sample["depth"], frame(1)["depth"], atol=0.5 / 256 + 1e-6)
    assert sample["intrinsics"][0, 0] == np.float32(721.5377)
    with_points = open_source(section.model_copy(update=STORED)).read(index)
    np.testing.assert_array_equal(with_points["sparse"], sample["depth"])


def test_one_list_may_be_the_root(tmp_path):
    section = kitti_lists(tmp_path)
    one = tmp_path / "eigen_test_files_with_gt.txt"
    assert {each.split for each in open_source(section.model_copy(update={"root": str(one)})).frames} == {"test"}
    assert recognise(one) == "kitti"


def test_lists_choose_among_drives_that_are_there(tmp_path):
    section = kitti(tmp_path)
    drive = DRIVES["train"][0]
    line = f"{DATE}/{drive}/image_02/data/0000000005.png {drive}/proj_depth/groundtruth/image_02/0000000005.png 721.5\n"
    (tmp_path / "eigen_train_files_with_gt.txt").write_text(line)
    assert [each.id for each in open_source(section).frames] == [f"{drive}/image_02/0000000005"]


def test_a_missing_file_is_named_with_its_line(tmp_path):
    section = kitti_lists(tmp_path)
    truth = f"{DRIVES['val'][0]}/proj_depth/groundtruth/image_02/0000000005.png"
    (tmp_path / "data_depth_annotated" / truth).unlink()
    with pytest.raises(DataError, match=rf"data_depth_annotated/{truth}: No such file.*eigen_test.* line 1\)"):
        open_source(section)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg b.png 700\n", "line 4 is of a list not of KITTI like the others"),
        (
            "a.png x/proj_depth/b.png 700\n",
            "line 4 must name colour as DRIVE_sync/image_02/data/NUMBER.png, is 'a.png'",
        ),
        ("a.png x/proj_depth/b.png\n", "line 4 must be `rgb depth focal`"),
    ],
)
def test_a_bad_line_of_a_list(tmp_path, line, message):
    section = kitti_lists(tmp_path)
    path = tmp_path / "eigen_test_files_with_gt.txt"
    path.write_text(path.read_text() + line)
    with pytest.raises(DataError, match=rf"eigen_test_files_with_gt.txt: {message}"):
        open_source(section)
