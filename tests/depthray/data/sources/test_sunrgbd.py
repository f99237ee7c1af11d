"""SUN RGB-D: rotated bits, refined before raw depth, and scenes that keep a room together."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from layouts_other import frame, save, sunrgbd, sunrgbd_split
from scipy.io import savemat

from depthray.data.sources import open_source, recognise
from depthray.data.sources.sunrgbd import metres
from depthray.data.split import split
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


KV1, XTION = "kv1/NYUdata/NYU000{}", "xtion/sun3ddata/brown_1/brown_1/000{}"
TOOLBOX = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"


@pytest.mark.parametrize(("place", "compressed"), [("allsplit.mat", True), (TOOLBOX, False), (f"../{TOOLBOX}", True)])
def test_the_official_split_is_read_where_its_file_is(tmp_path, place, compressed):
    section = sunrgbd(tmp_path / "SUNRGBD")
    train, test = [KV1.format(1), XTION.format(2)], [KV1.format(2)]
    sunrgbd_split(tmp_path / "SUNRGBD" / place, train=train, test=test, compressed=compressed)
    source: Any = open_source(section)
    assert {each.id: each.split for each in source.frames} == {
        KV1.format(1): "train",
        KV1.format(2): "test",
        XTION.format(2): "train",
    }
    assert source.frames[1].scene == "kv1/NYUdata/kitchen (test)"
    assert "allsplit.mat: 1 frames left out, which it does not list" in source.notes[0]
    assert [source.frames[index].id for index in split(source.frames, section).test] == [KV1.format(2)]


def test_a_sensors_folder_is_split_too(tmp_path):
    section = sunrgbd(tmp_path / "SUNRGBD")
    sunrgbd_split(tmp_path / TOOLBOX, train=[KV1.format(1)], test=[KV1.format(2)])
    below = section.model_copy(update={"root": str(tmp_path / "SUNRGBD" / "kv1")})
    assert [each.split for each in open_source(below).frames] == ["train", "test"]


def test_a_damaged_split_is_a_line_whatever_the_damage(tmp_path):
    section, path = sunrgbd(tmp_path), tmp_path / "allsplit.mat"
    sunrgbd_split(path, train=[KV1.format(1)], test=[KV1.format(2)], compressed=False)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(128, len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged[: rng.integers(128, len(content) + 400)]))
        with suppress(DataError):
            open_source(section)


def test_a_split_of_other_frames_is_refused(tmp_path):
    section = sunrgbd(tmp_path)
    sunrgbd_split(tmp_path / "allsplit.mat", train=["kv2/a"], test=["kv2/b"])
    with pytest.raises(DataError, match=r"allsplit\.mat: lists none of the 4 frames"):
        open_source(section)
    (tmp_path / "allsplit.mat").write_bytes(b"x" * 200)
    with pytest.raises(DataError, match=r"allsplit\.mat: not a readable MATLAB file of version 5"):
        open_source(section)
    savemat(tmp_path / "allsplit.mat", {"alltrain": np.array([["kv1/a"]], object)})
    with pytest.raises(DataError, match=r"allsplit\.mat: no variable 'alltest'"):
        open_source(section)
