"""DIODE: sides by folder, masked depth, and a camera that follows the size of the image."""

from __future__ import annotations

import numpy as np
import pytest
from layouts_other import diode, frame

from depthray.data.sources import open_source, recognise
from depthray.data.sources.diode import PINHOLE
from depthray.errors import DataError


def test_frames_sides_and_locations(tmp_path):
    source = open_source(diode(tmp_path))
    assert [each.split for each in source.frames] == ["train"] * 4 + ["val"] * 2
    assert {each.scene for each in source.frames} == {
        "indoors/scene_00000",
        "indoors/scene_00001",
        "outdoor/scene_00022",
    }
    assert {each.source for each in source.frames} == {"diode-indoors", "diode-outdoor"}
    assert recognise(tmp_path) == "diode"


def test_depth_counts_where_the_mask_is_set(tmp_path):
    sample = open_source(diode(tmp_path)).read(3)
    assert not sample["depth"][:, :2].any()
    np.testing.assert_array_equal(sample["depth"][:, 2:], frame(3)["depth"][:, 2:])


def test_the_camera_is_that_of_1024_pixels_at_any_size(tmp_path):
    matrix = open_source(diode(tmp_path)).read(0)["intrinsics"]
    np.testing.assert_allclose(
        (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]), np.array(PINHOLE) / 32, rtol=1e-6
    )


def test_one_side_alone_declares_nothing(tmp_path):
    section = diode(tmp_path)
    source = open_source(section.model_copy(update={"root": str(tmp_path / "train")}))
    assert {each.split for each in source.frames} == {""}
    assert recognise(tmp_path / "train") == "diode"


@pytest.mark.parametrize(("ending", "content"), [("_depth.npy", b"x"), ("_depth_mask.npy", b"")])
def test_damage_names_the_file(tmp_path, ending, content):
    section = diode(tmp_path)
    path = next(tmp_path.rglob(f"*{ending}"))
    path.write_bytes(content)
    source = open_source(section)
    with pytest.raises(DataError, match=f"{path.name}: not a readable .npy file"):
        [source.read(index) for index in range(len(source.frames))]


def test_a_mask_of_another_size_is_refused(tmp_path):
    section = diode(tmp_path)
    for path in tmp_path.rglob("*_depth_mask.npy"):
        np.save(path, np.ones((24, 31)))
    with pytest.raises(DataError, match=r"_depth_mask.npy: has shape \(24, 31\), but its depth \(24, 32\)"):
        open_source(section).read(0)
