"""Captures and further published sets in their own layouts, value by value."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import layouts_captures as layouts
import numpy as np
import pytest
from layouts_captures import SIZE, metres, picture

from depthray.data.packing import shard_encoding
from depthray.data.source import NO, YES, EncodedSource, notes
from depthray.data.sources import open_source, recognise
from depthray.errors import DataError

JPEG = 8  # grey levels by which a JPEG of a tiny image may differ in the mean


def check(sample, number, *, tolerance=0.00051, jpeg=False, unmeasured=()):
    """A sample equal to a rendered frame, but for parts that are unmeasured."""
    assert np.abs(sample["image"].astype(int) - picture(number)).mean() <= (JPEG if jpeg else 0)
    truth = metres(number).copy()
    for part in unmeasured:
        truth[part] = 0
    assert np.array_equal(sample["depth"] == 0, truth == 0)
    assert np.abs(sample["depth"] - truth).max() <= tolerance


def encoding(source):
    assert isinstance(source, EncodedSource)
    return source.encoding(0)


@pytest.mark.parametrize("form", layouts.MAKERS)
def test_forms_are_recognised(tmp_path, form):
    assert recognise(Path(layouts.MAKERS[form](tmp_path).root)) == form


def test_tum_in_1_5000_m(tmp_path):
    source = open_source(layouts.tum(tmp_path))
    assert len(source.frames) == 4
    for number in range(4):
        check(source.read(number), number, tolerance=0.00011)
    assert encoding(source) == "uint16_5000"
    assert source.frames[0].id == "rgbd_dataset_room/1305031103175304000"
    assert source.keys == {"image", "depth"}  # of no Kinect that is known


def test_tum_has_the_camera_of_its_kinect(tmp_path):
    section = layouts.tum(tmp_path, name="rgbd_dataset_freiburg3_room")
    with pytest.raises(DataError, match="colour is 32x24, but its camera is recorded for 640x480"):
        open_source(section).read(0)
    given = section.recording.model_copy(update={"intrinsics": (30, 30, 15.5, 11.5)})
    source = open_source(section.model_copy(update={"recording": given}))
    check(source.read(1), 1, tolerance=0.00011)
    assert source.read(1)["intrinsics"][0, 0] == 30


@pytest.mark.parametrize("line", ["abc rgb/1.png", "1305031102.1", "1305031102,5 rgb/1.png"])
def test_tum_lists_that_are_damaged(tmp_path, line):
    section = layouts.tum(tmp_path)
    path = next(tmp_path.rglob("rgb.txt"))
    path.write_text(f"# comment\n{line}\n")
    with pytest.raises(DataError, match=r"rgb.txt line 2: wanted a time in seconds and the name"):
        open_source(section)


@pytest.mark.parametrize("per_frame", [False, True])
def test_record3d_depth_gets_the_size_of_colour(tmp_path, per_frame):
    source = open_source(layouts.record3d(tmp_path, per_frame=per_frame))
    assert len(source.frames) == 3
    for number in range(3):
        sample, small = source.read(number), metres(number)[::2, ::2].copy()
        small[0, 0] = 0  # NaN
        assert sample["depth"].shape == SIZE
        assert np.array_equal(sample["depth"], np.repeat(np.repeat(small, 2, axis=0), 2, axis=1))
        focal = 30 + number if per_frame else 30
        assert sample["intrinsics"].tolist() == [[focal, 0, 15.5], [0, 31, 11.5], [0, 0, 1]]
    assert encoding(source) == "float_m"


def test_record3d_archives_that_are_damaged(tmp_path):
    section = layouts.record3d(tmp_path)
    path = tmp_path / "room.r3d"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"room.r3d: not a capture of Record3D"):
        open_source(section)


def test_scannet_scans_of_a_room_are_one_scene(tmp_path):
    source = open_source(layouts.scannet(tmp_path))
    assert [frame.scene for frame in source.frames] == ["scene0000"] * 4
    for number in range(4):
        check(source.read(number), number, jpeg=True)
    assert encoding(source) == "uint16/1000"


def test_scannet_scans_that_are_cut_off(tmp_path):
    section = layouts.scannet(tmp_path, scans=("scene0001_00",), count=3)
    path = tmp_path / "scene0001_00.sens"
    content = path.read_bytes()
    path.write_bytes(content[:-50])
    source = open_source(section)
    assert len(source.frames) == 2
    assert "cut off at frame 2 of 3" in notes(source)[0]
    path.write_bytes(content[:100])
    with pytest.raises(DataError, match="not a scan of ScanNet"):
        open_source(section)


@pytest.mark.parametrize("laser", [False, True])
def test_arkitscenes_videos_with_their_cameras_sides_and_visits(tmp_path, laser):
    source = open_source(layouts.arkitscenes(tmp_path, laser=laser))
    assert [(frame.scene, frame.split) for frame in source.frames] == [
        *[("visit-1", "train")] * 4,
        *[("visit-2", "val")] * 2,
    ]
    for number in range(6):
        sample = source.read(number)
        check(sample, number)
        assert sample["intrinsics"][0, 0] == 30 + number


@pytest.mark.parametrize("unpacked", ["", "vkitti_2.0.3_"])
def test_virtual_kitti_in_centimetres_without_sky(tmp_path, unpacked):
    section = layouts.vkitti2(tmp_path, unpacked=unpacked)
    source = open_source(section)
    assert len(source.frames) == 8
    assert {frame.scene for frame in source.frames} == {"Scene01", "Scene20"}
    for number in range(8):
        sample = source.read(number)
        check(sample, number, tolerance=0.0051, jpeg=True, unmeasured=[np.s_[0]])
        assert sample["intrinsics"][0, 0] == 30 + number % 2
        assert (sample["measurable"][0] == NO).all() and (sample["measurable"][1:] == YES).all()
    assert shard_encoding(section, source) == "uint16_256"


def test_virtual_kitti_without_cameras(tmp_path):
    section = layouts.vkitti2(tmp_path)
    next(tmp_path.rglob("intrinsic.txt")).unlink()
    with pytest.raises(DataError, match=r"intrinsic.txt; unpack vkitti_2.0.3_textgt there"):
        open_source(section)


def test_ibims_without_what_its_masks_leave_out(tmp_path):
    section = layouts.ibims(tmp_path)
    source = open_source(section)
    for number in range(3):
        sample = source.read(number)
        check(sample, number, unmeasured=[np.s_[:, 0], np.s_[:, -1]])
        assert sample["intrinsics"][1, 1] == pytest.approx(30.6)
        measurable = sample["measurable"]
        # Of what the other mask leaves out it is not known.
        assert (measurable[:, -1] == NO).all() and not measurable[:, 0].any()
        assert np.array_equal(measurable == YES, sample["depth"] > 0)
    assert {frame.split for frame in source.frames} == {"test"}


def test_eth3d_numbers_without_a_header(tmp_path):
    section = layouts.eth3d(tmp_path)
    source = open_source(section)
    assert [frame.scene for frame in source.frames] == ["courtyard", "office", "office"]
    for number in range(3):
        check(source.read(number), number, tolerance=0, jpeg=True, unmeasured=[np.s_[0]])
    path = next(tmp_path.glob("office/ground_truth_depth/*/*.JPG"))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="3068 bytes, but the image is 32x24, wanted 4 a pixel"):
        open_source(section).read(1)


def test_middlebury_disparity_is_depth(tmp_path):
    section = layouts.middlebury(tmp_path)
    source = open_source(section)
    assert [frame.scene for frame in source.frames] == ["Adirondack", "Pipes"]
    for number in range(2):
        sample = source.read(number)
        check(sample, number, tolerance=1e-4)
        assert sample["intrinsics"].tolist() == [[40, 0, 15.5], [0, 40, 11.5], [0, 0, 1]]
    one = open_source(section.model_copy(update={"root": str(tmp_path / "Pipes-perfect")}))
    assert one.frames[0] == ("im0", "Pipes", "", "middlebury")
    (tmp_path / "Pipes-perfect" / "calib.txt").write_text("cam0=[1 0 2]\n")
    with pytest.raises(DataError, match=r"calib.txt: wanted lines cam0="):
        open_source(section).read(1)


@pytest.mark.parametrize("form", [*layouts.MAKERS, "rosbag", "rosbag2", "mcap", "lerobot", "realsense"])
def test_a_folder_without_the_files_of_a_form_is_one_line(tmp_path, form):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("nothing")
    section = layouts.tum(tmp_path / "set").model_copy(update={"source": form, "root": str(tmp_path / "other")})
    with pytest.raises(DataError, match=str(tmp_path / "other")) as error:
        open_source(section)
    assert "\n" not in str(error.value)


def test_files_that_go_missing_are_named(tmp_path):
    section = layouts.arkitscenes(tmp_path)
    shutil.rmtree(next(tmp_path.rglob("lowres_depth")))
    open_source(section)  # one video fewer
    path = next(tmp_path.rglob("lowres_depth/*.png"))
    source = open_source(section)
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        [source.read(index) for index in range(len(source.frames))]


def test_images_are_read_as_they_are_stored(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(layouts.encoded(picture(0)))
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], picture(0))
