"""Videos and cameras: every frame once, upright, with its time; depth as a video of one scale."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from videos import grey_frames, write_video

from depthray.errors import DataError, ResourceError
from depthray.imaging import photos, sheets, video


def read(path, **options):
    with video.open_video(path, **options) as clip:
        return list(clip)


@pytest.mark.parametrize("fps", [5.0, 24.0])
def test_every_frame_has_its_number_and_time(tmp_path, fps):
    frames = read(write_video(tmp_path / "a.mp4", grey_frames(8), fps=fps))
    assert [frame.number for frame in frames] == list(range(8))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(8) / fps, atol=1e-3)
    values = np.array([frame.rgb.mean() for frame in frames])
    assert frames[0].rgb.shape == (48, 64, 3) and np.abs(values - 20 * np.arange(8)).max() < 5


def test_colours_are_rgb(tmp_path):
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    (frame,) = read(write_video(tmp_path / "a.avi", [red]))
    assert frame.rgb[..., 0].mean() > 150 and frame.rgb[..., 2].mean() < 50


def test_a_video_that_a_phone_recorded_turned_is_upright(tmp_path):
    top = np.zeros((48, 64, 3), np.uint8)
    top[:24] = 255
    data = bytearray(write_video(tmp_path / "a.mp4", [top] * 2).read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # behind version, times, id, duration, layer and volume: nine numbers
    turned = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30))
    data[matrix : matrix + 36] = turned
    (tmp_path / "turned.mp4").write_bytes(data)
    frame = read(tmp_path / "turned.mp4")[0].rgb
    assert frame.shape == (64, 48, 3) and frame[:, 24:].mean() > 200 and frame[:, :24].mean() < 50


def test_a_sample_is_spread_over_the_video_and_does_not_move_it(tmp_path):
    with video.open_video(write_video(tmp_path / "a.mp4", grey_frames(12))) as clip:
        values = [frame.mean() for frame in clip.sample(3)]
        assert values == pytest.approx([20 * 3, 20 * 6, 20 * 8], abs=5)
        assert [frame.number for frame in clip] == list(range(12))


@pytest.fixture
def camera(tmp_path, monkeypatch):
    """A video in place of the first camera of the machine."""
    path = write_video(tmp_path / "camera.mp4", grey_frames(4))
    capture = cv2.VideoCapture
    asked = {0: str(path), 7: str(tmp_path / "none.mp4")}
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: capture(asked.get(name, name)))


@pytest.mark.usefixtures("camera")
def test_a_camera_gives_its_frames_with_seconds_since_the_first():
    with video.open_video("camera:0") as clip:
        assert clip.is_camera and clip.length == 0
        seconds = [frame.seconds for frame in clip]
    assert len(seconds) == 4 and seconds == sorted(set(seconds)) and 0 <= seconds[0] < seconds[-1] < 10
    with pytest.raises(ResourceError, match="camera:7: no such camera, or another program"):
        read("camera:7")


@pytest.mark.parametrize("name", ["camera:0", "a.MP4", "b.mov", "deep/c.webm"])
def test_videos_and_cameras_are_known_by_name(name):
    assert video.is_video(name)


@pytest.mark.parametrize("name", ["camera:", "camera:x", "a.jpg", "mp4"])
def test_others_are_not(name):
    assert not video.is_video(name)


def test_what_is_no_video_is_named(tmp_path, capfd):
    whole = write_video(tmp_path / "a.mp4", grey_frames(4)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("cut.mp4", "text.mp4"):
        with pytest.raises(DataError, match=f"{name}: not a video that OpenCV reads; convert it"):
            read(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.mp4: no such file"):
        read(tmp_path / "gone.mp4")
    with pytest.raises(DataError, match="64x48 pixels, at most"):
        read(tmp_path / "a.mp4", limits=photos.LIMITS._replace(pixels=1000))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (60, 320)])
def test_depth_is_written_in_one_scale(tmp_path, size):
    scale = sheets.scale_of(0.0, 10.0)
    with video.DepthVideo(tmp_path / "d.mp4", fps=8.0, scale=scale) as writer:
        for metres in (1.0, 5.0, 9.0):
            writer.write(np.full(size, metres, np.float32))
        assert not (tmp_path / "d.mp4").exists()
    frames = read(tmp_path / "d.mp4")
    assert [frame.seconds for frame in frames] == pytest.approx([0, 1 / 8, 2 / 8], abs=1e-3)
    for frame, metres in zip(frames, (1.0, 5.0, 9.0), strict=True):
        expected = sheets.colour_depth(np.full((1, 1), metres, np.float32), near=0, far=10)[0, 0].astype(int)
        assert np.abs(frame.rgb[: size[0], : size[1]].mean((0, 1)) - expected).max() < 12  # the codec's
    bar = 38 if size[1] >= 120 else 0
    assert frames[0].rgb.shape == (size[0] + bar + (size[0] + bar) % 2, size[1] + size[1] % 2, 3)


@pytest.mark.parametrize("ends", [(0.5, 8), (0, 9), (0.37, 0.42), (3, 71.5), (0, 10)])
@pytest.mark.parametrize("width", [60, 128, 320, 1280])
def test_any_scale_has_a_bar(tmp_path, ends, width):
    with video.DepthVideo(tmp_path / "d.mp4", fps=8.0, scale=sheets.scale_of(*ends)) as writer:
        writer.write(np.full((16, width), ends[1], np.float32))
    assert (tmp_path / "d.mp4").is_file()


def test_a_failure_leaves_no_video_and_an_interrupt_a_short_one(tmp_path):
    def write(error):
        with video.DepthVideo(tmp_path / "d.mp4", fps=8.0, scale=sheets.scale_of(0, 10)) as writer:
            writer.write(np.ones((48, 64), np.float32))
            raise error

    with pytest.raises(ValueError, match="x"):
        write(ValueError("x"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt())
    assert len(read(tmp_path / "d.mp4")) == 1
