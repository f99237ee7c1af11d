"""Hypersim: distance becomes depth, NaN unmeasured, and the published split is followed where it is there."""

from __future__ import annotations

import numpy as np
import pytest
from layouts_other import frame, hypersim

from depthray.data.sources import open_source, recognise
from depthray.data.sources.hypersim import SPLIT, along_axis
from depthray.errors import DataError

HEAD = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"


def test_distance_becomes_depth_along_the_axis(tmp_path):
    source = open_source(hypersim(tmp_path))
    sample = source.read(5)
    assert sample["depth"][0, 0] == 0
    np.testing.assert_allclose(sample["depth"][1:], frame(5)["depth"][1:], rtol=2e-3)  # float16
    assert recognise(tmp_path) == "hypersim"


def test_a_wall_is_flat_at_full_size():
    rows, columns = np.mgrid[:768, :1024].astype(np.float32)
    rays = np.stack([(columns - 511.5) / 886.81, (rows - 383.5) / 886.81, np.ones_like(rows)])
    wall = 3 * np.linalg.norm(rays, axis=0)
    assert wall.max() > 3.69
    np.testing.assert_allclose(along_axis(wall.astype(np.float32)), 3, rtol=1e-6)


def test_ids_and_camera(tmp_path):
    source = open_source(hypersim(tmp_path))
    sample = source.read(0)
    assert set(source.keys) == {"image", "depth", "semantics", "intrinsics"}
    assert sample["semantics"][0, 0] == 0
    np.testing.assert_array_equal(sample["semantics"][1:], frame(0)["semantics"][1:])
    np.testing.assert_allclose(sample["intrinsics"][:2, 2], (15.5, 11.5))
    np.testing.assert_allclose(sample["intrinsics"][0, 0], 886.81 / 32, rtol=1e-6)


def test_the_published_split(tmp_path):
    section = hypersim(tmp_path)
    assert {each.split for each in open_source(section).frames} == {""}
    sides = {"ai_001_001": "train", "ai_001_002": "val", "ai_001_003": "test"}
    lines = [f"{scene},cam_00,{number},True,,{side}" for scene, side in sides.items() for number in (0, 1)]
    lines[1] = "ai_001_001,cam_00,1,False,bad,"
    (tmp_path / SPLIT).write_text("\n".join([HEAD, *lines]))
    frames = open_source(section).frames
    assert [(each.scene, each.split) for each in frames] == [
        ("ai_001_001", "train"),
        *[("ai_001_002", "val")] * 2,
        *[("ai_001_003", "test")] * 2,
    ]
    (tmp_path / SPLIT).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not the table of the published split"):
        open_source(section)


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_damage_names_the_file(tmp_path, content):
    section = hypersim(tmp_path)
    path = sorted(tmp_path.rglob("*depth_meters.hdf5"))[0]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"frame.0000.depth_meters.hdf5: not a complete HDF5 file"):
        open_source(section).read(0)
