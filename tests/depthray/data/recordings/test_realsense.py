"""Bags of librealsense: units from the bag, registration by its transforms, its distortion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from realsense_bags import DEPTH, FOCAL, write
from recorded import SIZE, millimetres, picture

from depthray.config.sections import Data
from depthray.data.recordings import rig
from depthray.data.recordings.rig import IDENTITY, Lens
from depthray.data.sources import open_source, recognise
from depthray.errors import DataError


def opened(path, source="rosbag", **options):
    return open_source(Data(source=source, root=str(path), recording={"change": 0, **options}))


@pytest.mark.parametrize("source", ["rosbag", "realsense"])
@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("steps", [1000, 4000])
def test_values_are_in_the_unit_of_the_bag(tmp_path, source, newer, steps):
    path = write(tmp_path / "a.bag", steps=steps, newer=newer, unit=not newer)
    assert recognise(path) == "rosbag"
    read = opened(path, source)
    assert len(read.frames) == 3
    for index in (0, 2, 1):
        sample = read.read(index)
        assert np.array_equal(sample["image"], picture(index))
        assert sample["depth"] == pytest.approx(millimetres(index) / 1000, rel=1e-6)
        assert sample["intrinsics"].reshape(-1).tolist() == list(FOCAL)
    assert read.encoding(0) == f"uint16*{1 / steps:g}"


def test_a_bag_without_a_unit_asks_for_it(tmp_path):
    path = write(tmp_path / "a.bag", unit=False)
    with pytest.raises(DataError, match=rf"{DEPTH}/image/data is mono16, which has no unit"):
        opened(path)


def test_depth_is_registered_by_the_transforms_of_the_bag(tmp_path):
    source = opened(write(tmp_path / "a.bag", count=1, shift=0.1))
    assert "depth is registered to colour in 1 recording" in source.notes
    lens = Lens(*SIZE, FOCAL)
    place = rig.given_pose((0.1, 0, 0, 0, 0, 0, 1))
    truth = rig.register((millimetres(0) / np.float32(1000)), lens, lens, place, size=SIZE)
    assert source.read(0)["depth"] == pytest.approx(truth, rel=1e-6)
    assert not np.array_equal(truth, millimetres(0) / np.float32(1000))


def test_the_inverse_model_removes_distortion_by_its_polynomial():
    """A point of the recorded image, and where the polynomial says that an undistorted camera sees it."""
    size = (48, 64)
    lens = Lens(
        *size, (40.0, 0, 31.5, 0, 40.0, 23.5, 0, 0, 1.0), "inverse_brown_conrady", (-0.1, 0.02, 0.003, -0.002, 0.0)
    )
    column, row = 12, 9
    x, y = (column - 31.5) / 40, (row - 23.5) / 40
    k1, k2, p1, p2, k3 = lens.distortion
    r2 = x * x + y * y
    factor = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    straight = (
        x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * factor + 2 * p2 * x * y + p1 * (r2 + 2 * y * y),
    )
    seen_at = (straight[0] * 40 + 31.5, straight[1] * 40 + 23.5)
    across, down = rig.undistortion(lens)
    point = np.array([[seen_at]], np.float32)
    found = [cv2.remap(each, point[..., 0], point[..., 1], cv2.INTER_LINEAR)[0, 0] for each in (across, down)]
    assert found == pytest.approx([column, row], abs=0.02)
    depth = np.zeros(size, np.float32)
    depth[row, column] = 2
    registered = rig.register(depth, lens, lens, IDENTITY, size=size)
    assert np.argwhere(registered).tolist() == [[round(seen_at[1]), round(seen_at[0])]]


def test_distortion_by_the_names_of_librealsense(tmp_path):
    path = write(tmp_path / "a.bag", count=1, model="Inverse Brown Conrady", distortion=(-0.1, 0.02, 0, 0, 0))
    source = opened(path)
    assert "lens distortion is removed" in source.notes
    assert not np.array_equal(source.read(0)["image"], picture(0))
    assert np.array_equal(opened(path, undistort=False, register_depth=False).read(0)["image"], picture(0))
