"""NYU Depth V2 as on Kaggle: two lists without header, whose depth has 8 bits in one part and 16 in the other."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts_nyu import HOLE, PER_SCENE, SCENES, nyu_csv, room, save

from depthray.data.sources import open_source, recognise
from depthray.errors import DataError

TRAIN = SCENES * PER_SCENE
STEP = 10 / 255  # metres


@pytest.fixture
def section(tmp_path):
    return nyu_csv(tmp_path / "set")


@pytest.fixture
def data(section, tmp_path):
    return tmp_path / "set/data"


def test_training_depth_is_of_8_bits_over_10_m(section):
    sample = open_source(section).read(4)
    np.testing.assert_allclose(sample["depth"], room(4)["depth"], atol=STEP / 2 + 1e-6)
    assert (sample["depth"][HOLE] == 0).all()
    assert np.abs(sample["image"].astype(int) - room(4)["image"]).mean() < 8  # JPEG


def test_test_depth_is_millimetres(section):
    sample = open_source(section).read(TRAIN)
    np.testing.assert_allclose(sample["depth"], room(100)["depth"], atol=5.1e-4)
    np.testing.assert_array_equal(sample["image"], room(100)["image"])


def test_frames(section):
    frames = open_source(section).frames
    assert frames[0] == ("nyu2_train/kitchen_0000_out/0", "kitchen_0000", "train", "nyu")
    assert frames[TRAIN] == ("nyu2_test/00000", "nyu2_test", "test", "nyu")
    assert len(frames) == TRAIN + 2


def test_parts_of_a_recording_are_one_scene(section, data):
    for part in "ab":
        (data / "nyu2_train/kitchen_0000_out").rename(data / f"nyu2_train/cafe_0001{part}_out")
        text = (data / "nyu2_train.csv").read_text()
        (data / "nyu2_train.csv").write_text(text.replace("kitchen_0000_out", f"cafe_0001{part}_out"))
        assert open_source(section).frames[0].scene == "cafe_0001"
        (data / f"nyu2_train/cafe_0001{part}_out").rename(data / "nyu2_train/kitchen_0000_out")
        (data / "nyu2_train.csv").write_text(text)


@pytest.mark.parametrize("where", ["", "data", "data/nyu2_test.csv"])
def test_root_may_be_the_folder_data_or_one_list(section, where):
    frames = open_source(section.model_copy(update={"root": str(Path(section.root) / where)})).frames
    assert len(frames) == (2 if where.endswith("csv") else TRAIN + 2)


def test_one_part_is_enough(section, data):
    (data / "nyu2_train.csv").unlink()
    assert recognise(Path(section.root)) == "nyu_csv"
    assert {frame.split for frame in open_source(section).frames} == {"test"}


@pytest.mark.parametrize(
    ("name", "line"), [("nyu2_train/kitchen_0001_out/2.png", 6), ("nyu2_test/00001_colors.png", 2)]
)
def test_missing_file_is_reported_with_its_line(section, data, name, line):
    (data / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: No such file.*\(frame \d+, nyu2_t\w+\.csv line {line}\)"):
        open_source(section)


@pytest.mark.parametrize(
    ("name", "dtype", "index"),
    [("nyu2_train/kitchen_0000_out/0.png", np.uint16, 0), ("nyu2_test/00000_depth.png", np.uint8, TRAIN)],
)
def test_depth_of_the_other_part_is_refused(section, data, name, dtype, index):
    save(data / name, np.ones((36, 48), dtype))
    with pytest.raises(DataError, match=rf"{name}: depth is stored as {dtype.__name__}.*\(frame {index}, .*line 1\)"):
        open_source(section).read(index)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(9)])
def test_damaged_file(section, data, content):
    (data / "nyu2_train/kitchen_0000_out/1.png").write_bytes(content)
    with pytest.raises(DataError, match=r"1\.png: not a readable image .*\(frame 1, nyu2_train\.csv line 2\)"):
        open_source(section).read(1)


def test_different_sizes(section, data):
    cv2.imwrite(str(data / "nyu2_train/kitchen_0000_out/0.png"), np.ones((18, 24), np.uint8))
    with pytest.raises(DataError, match=r"0\.png: size mismatch, depth is 24x18 but rgb is 48x36.*\(frame 0"):
        open_source(section).read(0)


@pytest.mark.parametrize("line", ["data/a.jpg", "a.jpg,b.png,c.png", "a.jpg,"])
def test_bad_line(section, data, line):
    (data / "nyu2_train.csv").write_text(f"data/x.jpg,data/x.png\n{line}\n")
    with pytest.raises(DataError, match=rf"nyu2_train\.csv: line 2 must name .* is '{line}'"):
        open_source(section)


def test_list_that_is_no_text(section, data):
    (data / "nyu2_train.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"nyu2_train\.csv: not a CSV file in UTF-8"):
        open_source(section)


def test_an_empty_list(section, data):
    for path in data.glob("*.csv"):
        path.write_text("\n")
    with pytest.raises(DataError, match="no frames"):
        open_source(section)


def test_another_list_is_no_such_data_set(section, data):
    (data / "mine.csv").write_text("data/a.jpg,data/a.png\n")
    with pytest.raises(DataError, match=r"mine\.csv: neither nyu2_train\.csv nor"):
        open_source(section.model_copy(update={"root": str(data / "mine.csv")}))
