"""SUN RGB-D: rotated bits, refined before raw depth, and scenes that keep a room together."""

from __future__ import annotations

import numpy as np
import pytest
from layouts_other import frame, save, sunrgbd

from depthray.data.sources import open_source, recognise
from depthray.data.sources.sunrgbd import metres
from depthray.errors import DataError


def test_every_millimetre_to_8_m_comes_back_and_no_more():
    true = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    depth = metres((true << 3) | (true >> 13), where="x")
    np.testing.assert_array_equal(depth, np.where(true <= 8000, true / np.float32(1000), 0).astype(np.float32))


def test_frames(tmp_path):
    source = open_source(sunrgbd(tmp_path))
    assert source.frames[0].id == "kv1/NYUdata/NYU0001"
    assert [each.scene for each in source.frames][1:3] == [
        "kv1/NYUdata/kitchen",
        "xtion/sun3ddata/brown_1/brown_1/bedroom",
    ]
    for index in (0, 3):
        true = frame(index)["depth"]
        near = true < 8
        np.testing.assert_allclose(source.read(index)["depth"][near], true[near], atol=0.00051)
    assert source.read(0)["intrinsics"].tolist() == [[520.5, 0, 16], [0, 520.5, 12], [0, 0, 1]]
    assert recognise(tmp_path) == "sunrgbd"


def test_refined_depth_is_preferred_to_raw(tmp_path):
    section = sunrgbd(tmp_path)
    save(tmp_path / "kv1/NYUdata/NYU0001/depth/0.png", np.zeros((24, 32), np.uint16))
    assert open_source(section).read(0)["depth"].any()


def test_a_folder_with_two_images_is_refused(tmp_path):
    section = sunrgbd(tmp_path)
    save(tmp_path / "kv1/NYUdata/NYU0001/image/other.jpg", frame(0)["image"])
    with pytest.raises(DataError, match=r"NYU0001/image: holds 2 images, wanted 1"):
        open_source(section)


@pytest.mark.parametrize("text", ["520 0 16", "a b c d e f g h i", "0 0 16 0 520 12 0 0 1", "nan 0 16 0 520 12 0 0 1"])
def test_a_camera_that_is_none_is_refused(tmp_path, text):
    section = sunrgbd(tmp_path)
    (tmp_path / "kv1/NYUdata/NYU0001/intrinsics.txt").write_text(text)
    with pytest.raises(DataError, match=r"intrinsics.txt: "):
        open_source(section).read(0)
