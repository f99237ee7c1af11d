"""Data sets of LeRobot with real Parquet and video files, read value by value."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lerobot_sets import DEPTH, FPS, PATHS, QUANTISED, codes, metres, picture, write_set, write_video

from depthray.config.sections import Data
from depthray.data.sources import open_source, recognise
from depthray.errors import DataError

FLAGGED = {"is_depth_map": True}


def opened(root, encoding="uint16_mm", **options):
    return open_source(Data(source="lerobot", root=str(root), encoding=encoding, recording={"change": 0, **options}))


@pytest.mark.parametrize("version", PATHS)
@pytest.mark.parametrize("depth", ["video", "image", "array"])
def test_values_are_those_that_were_written(tmp_path, version, depth):
    root = write_set(tmp_path / "set", version=version, depth=depth)
    source = opened(root)
    assert recognise(root) == "lerobot"
    assert [frame.scene for frame in source.frames] == ["episode_000000"] * 4 + ["episode_000001"] * 3
    for index in (0, 6, 6, 0, 6, 1, 2, 5, 3, 4, 4):
        read, truth = source.read(index), metres(index)
        assert np.array_equal(read["image"], picture(index))
        assert np.array_equal(read["depth"] == 0, truth == 0)
        if depth == "video":  # 12 bits of a logarithm: a step is 4.5 mm at 10 m
            step = (truth + 3.5) * np.log(13.5 / 3.51) / 4095
            assert (np.abs(read["depth"] - truth) <= 0.51 * step + 1e-6).all()
        else:
            assert np.array_equal(read["depth"], (np.rint(truth * 1000) / 1000).astype(np.float32))


def test_depth_beyond_the_range_of_a_video_is_unmeasured(tmp_path):
    root = write_set(tmp_path / "set", lengths=(1,))
    stored = codes(np.array([[0, 0.005, 0.02, 9.9, 10, 65]], np.float32).repeat(64, 0).repeat(16, 1))
    path = next(root.glob(f"videos/{DEPTH}/*/*.mp4"))
    write_video(path.with_suffix(".mkv"), [stored], form="gray12le", codec="ffv1")
    path.with_suffix(".mkv").rename(path)
    assert opened(root).read(0)["depth"][0, ::16] == pytest.approx([0, 0, 0.02, 9.9, 0, 0], abs=3e-3)


def test_linear_quantisation(tmp_path):
    facts = {**FLAGGED, **QUANTISED, "video.depth_min": 0.0, "video.depth_max": 8.0, "video.use_log": False}
    root = write_set(tmp_path / "set", lengths=(1,), facts=facts)
    assert opened(root).read(0)["depth"][10, 10] == pytest.approx(codes(metres(0))[10, 10] * 8 / 4095, rel=1e-5)


@pytest.mark.parametrize("depth", ["image", "array"])
def test_a_unit_that_is_not_stated_is_declared(tmp_path, depth):
    root = write_set(tmp_path / "set", depth=depth, facts=FLAGGED)
    with pytest.raises(DataError, match=rf"{DEPTH} is mono16, which has no unit"):
        opened(root)
    depth_read = opened(root, encoding="uint16/1000").read(2)["depth"]
    assert np.array_equal(depth_read, np.rint(metres(2) * 1000).astype(np.float32) / np.float32(1000))


def test_the_frames_of_an_episode_are_their_own(tmp_path):
    source = opened(write_set(tmp_path / "set", lengths=(3, 1, 4)), every=2)
    assert [frame.id.partition("/")[0] for frame in source.frames] == [
        f"episode_{number:06d}" for number in (0, 0, 1, 2, 2)
    ]
    assert [source.read(index)["image"].sum() for index in range(5)] == [
        picture(number).sum() for number in (0, 2, 3, 4, 6)
    ]


def test_intrinsics_are_those_that_are_given(tmp_path):
    source = opened(write_set(tmp_path / "set", lengths=(1,)), intrinsics=(60, 61, 47.5, 31.5))
    assert source.read(0)["intrinsics"].tolist() == [[60, 0, 47.5], [0, 61, 31.5], [0, 0, 1]]


def test_a_video_that_is_cut_off_is_named_with_the_time(tmp_path):
    root = write_set(tmp_path / "set", lengths=(4,))
    path = next(root.glob("videos/observation.images.top/*/*.mp4"))
    write_video(path, [picture(0)], form="rgb24", codec="libx264rgb", crf="0")
    source = opened(root)
    source.read(0)
    with pytest.raises(DataError, match=rf"no frame at {2 / FPS:.3f} s; is the video cut off"):
        source.read(2)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"file-000.mp4: not a video that can be read"):
        opened(root).read(0)


def test_a_picture_of_depth_is_not_depth(tmp_path):
    root = write_set(tmp_path / "set", lengths=(1,))
    path = next(root.glob(f"videos/{DEPTH}/*/*.mp4"))
    write_video(path, [picture(0)], form="rgb24", codec="libx264rgb", crf="0")
    with pytest.raises(DataError, match=r"8 bits: a picture of depth, not depth"):
        opened(root).read(0)


def change_info(root, **changes):
    path = root / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda root: change_info(root, codebase_version="v1.6"), "codebase_version is 'v1.6', known are v2.0"),
        (lambda root: (root / "meta" / "info.json").write_text("{"), "info.json: not the description of a data set"),
        (lambda root: next(root.glob("data/*/*.parquet")).write_bytes(b"PAR1"), "not a table that can be read"),
        (lambda root: next(root.glob("data/*/*.parquet")).unlink(), "not a table that can be read"),
        (lambda root: next(root.glob(f"videos/{DEPTH}/*/*.mp4")).unlink(), "No such file"),
        (lambda root: next(root.glob("meta/episodes/*/*.parquet")).unlink(), "no episodes listed there"),
        (lambda root: change_info(root, features={}), "no topics of images; its topics: none"),
    ],
)
def test_what_is_damaged_is_one_line(tmp_path, harm, words):
    root = write_set(tmp_path / "set", lengths=(1,))
    harm(root)
    with pytest.raises(DataError, match=words) as error:
        opened(root)
    assert "\n" not in str(error.value)
