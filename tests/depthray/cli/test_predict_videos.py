"""`depthray predict` of videos: which files, one scale, times kept, and nothing half-made."""

from __future__ import annotations

import csv
from contextlib import nullcontext
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from videos import grey_frames, write_video

from depthray.cli import predict
from depthray.cli.predicting.clips import ClipRequest, predict_clip
from depthray.errors import DataError, ResourceError
from depthray.imaging import photos, sheets, video


def request(**changes):
    usual = {"camera": None, "limits": photos.LIMITS, "scale": None, "every": 1, "most": 0, "unit": " m"}
    return ClipRequest(**{"formats": ["colour"], **usual, **changes})


def brightness(rgb):
    """A network whose depth is the brightness: 1 m for 20, 2 m for 40."""
    return {"depth": rgb.mean(-1).astype(np.float32) / 20 + 0.5}


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def clip(tmp_path):
    (tmp_path / "in").mkdir()
    return write_video(tmp_path / "in" / "a.mp4", grey_frames(10))


def test_a_video_becomes_a_video_in_one_scale_and_a_table_of_times(clip, tmp_path):
    printed = predict_clip(clip, tmp_path / "out" / "a", request(), brightness)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.colour.mp4", "a.frames.csv"]
    rows = table(tmp_path / "out" / "a.frames.csv")
    assert [float(row["seconds"]) for row in rows] == pytest.approx([0.1 * index for index in range(10)], abs=1e-3)
    assert [float(row["median"]) for row in rows] == pytest.approx([index + 0.5 for index in range(10)], abs=0.2)
    assert "64x48  10 frames" in printed and "in all frames" in printed and "WARNING" not in printed
    with video.open_video(tmp_path / "out" / "a.colour.mp4") as made:
        colours = [frame.rgb.mean((0, 1)).round() for frame in made]
    assert len(colours) == 10 and np.abs(colours[2] - colours[7]).max() > 50  # a scale of each frame would paint alike


def test_files_of_frames_have_the_numbers_of_the_frames(clip, tmp_path):
    predict_clip(clip, tmp_path / "a", request(formats=["png", "npy"], every=4), brightness)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        f"{index:06d}.depth.{kind}" for index in (0, 4, 8) for kind in ("npy", "png")
    ]
    assert [row["frame"] for row in table(tmp_path / "a.frames.csv")] == ["0", "4", "8"]
    assert not (tmp_path / "a.colour.mp4").exists()
    stored = cv2.imread(str(tmp_path / "a" / "000004.depth.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16 and abs(int(stored.mean()) - 4500) < 200


def test_a_scale_that_is_given_is_kept(clip, tmp_path):
    printed = predict_clip(clip, tmp_path / "a", request(scale=sheets.scale_of(0.5, 7), most=2), brightness)
    assert "red 0.5 m to blue 7 m" in printed and "2 frames" in printed


def test_masks_are_files_and_need_no_depth(clip, tmp_path):
    predict_clip(clip, tmp_path / "a", request(most=2), lambda rgb: {"mask": (rgb[..., 0] / 255).astype(np.float32)})
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["000000.mask.png", "000001.mask.png"]


def test_a_failure_leaves_neither_video_nor_table(clip, tmp_path):
    seen = []

    def fail(rgb):
        seen.append(rgb)
        if len(seen) > 7:  # amid the video, after the frames that choose the scale
            raise DataError("the network fails")
        return brightness(rgb)

    with pytest.raises(DataError, match="the network fails"):
        predict_clip(clip, tmp_path / "out" / "a", request(), fail)
    assert list((tmp_path / "out").iterdir()) == []


def interrupt_after(frames):
    seen = []

    def maps(rgb):
        seen.append(rgb)
        if len(seen) > frames:
            raise KeyboardInterrupt
        return brightness(rgb)

    return maps


def test_an_interrupted_video_is_one_of_fewer_frames(clip, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_clip(clip, tmp_path / "a", request(), interrupt_after(5 + 3))
    assert len(table(tmp_path / "a.frames.csv")) == 3
    with video.open_video(tmp_path / "a.colour.mp4") as made:
        assert len(list(made)) == 3


def test_a_camera_runs_until_it_is_interrupted(clip, tmp_path, monkeypatch):
    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: capture(str(clip) if name == 0 else name))
    printed = predict_clip("camera:0", tmp_path / "camera-0", request(), interrupt_after(1 + 4))
    assert "camera:0  64x48  4 frames" in printed
    assert len(table(tmp_path / "camera-0.frames.csv")) == 4


def test_what_cannot_be_written_is_named(clip, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        predict_clip(clip, tmp_path / "file" / "a", request(), brightness)


def test_the_colours_of_a_photo_are_scaled_once(tmp_path, monkeypatch, capsys):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((40, 160, 3), 60, np.uint8))
    scale = Mock(wraps=sheets.depth_scale)
    monkeypatch.setattr(sheets, "depth_scale", scale)
    network = predict._Network(("image",), (), "metres", lambda image, rgb, others, camera: brightness(rgb))
    monkeypatch.setattr(predict, "_network", lambda arguments: nullcontext(network))
    for formats, count in (("png,colour", 1), ("png", 1)):  # none for what has no colours
        arguments = [str(tmp_path / "run"), str(tmp_path / "grey.png"), "--out", str(tmp_path), "--format", formats]
        assert predict.main(arguments) == 0
        assert scale.call_count == count
    assert capsys.readouterr().out.count("red 3.") == 1
